"""Snapshots of weights, buffers, optimizer state and averages of the weights, to go back to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.plain_copy import plain_copy
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.treatment.step.averages import Averages
from grad_callbacks.treatment.step.kept_tensors import KeptTensor, size_of
from grad_callbacks.treatment.step.moving_averages import AveragesRestored, KeptAverage, MovingAverages
from grad_callbacks.treatment.step.optimizer_state import OptimizerMemory, PackedOptimizer
from grad_callbacks.treatment.step.packing import Packer, put
from grad_callbacks.treatment.step.scales import rate_on_host, scale_of
from grad_callbacks.treatment.step.snapshot_store import SnapshotStore


@dataclass(frozen=True)
class SnapshotsThresholds(Thresholds):
    """The numbers of :class:`Snapshots`."""

    trusted: int = threshold(
        10,
        "calm readings after which a snapshot counts as healthy: an explosion may be seen late",
        unit="readings",
        source="not measured",
    )
    most: int = threshold(
        4,
        "snapshots that are kept: the first, an old one, and the two latest that are trusted or wait to be",
        unit="snapshots",
        source="not measured",
    )
    interval: int = threshold(25, "readings between two snapshots", unit="readings", source="not measured")
    rarely: int = threshold(
        4,
        "times as many readings between two that are written to files, once the run is as old as that",
        unit="1",
        source="not measured",
    )


LIMITS = SnapshotsThresholds()


@dataclass(frozen=True)
class _Copies:
    """The tensors of a snapshot, and how they go together."""

    parameters: Sequence[KeptTensor]
    buffers: Sequence[KeptTensor]
    state: Sequence[KeptTensor]
    optimizer: PackedOptimizer
    averages: Sequence[KeptAverage]
    shapes: Sequence[torch.Size]

    @property
    def everything(self) -> list[KeptTensor]:
        """All of them."""
        of_averages = [copied for kept in self.averages for copied in kept.copies]
        return [*self.parameters, *self.buffers, *self.state, *of_averages]


class Snapshots:
    """A few ages of weights, buffers, optimizer state, averages of the weights and loss scale, oldest first.

    The first one is from before the first step, and is kept until :meth:`forget_first`. On an accelerator they are
    copied to pinned memory of the host, which does not wait for them. Checkpoints do not hold them: after a resumption
    the state that was loaded is the first to go back to.

    Args:
        model: Its buffers are kept.
        optimizer: Its parameters and state are kept.
        interval: Readings between two snapshots.
        memory: What they may take in memory (see :class:`~grad_callbacks.treatment.step.snapshot_store.SnapshotStore`).
        holders: Objects beside the model that may hold averages of the weights, such as callbacks.
        trained: Returns the ids of all parameters that some optimizer moves; by default those of ``optimizer``.

    Attributes:
        entries: The snapshots.
        scaler: The loss scaler that is used, if one is: its scale is kept and restored too.
        averages: What became of averages when a snapshot was restored last; None once that was told.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        interval: int = LIMITS.interval,
        memory: float | None = None,
        holders: Sequence[object] = (),
        trained: Callable[[], set[int]] | None = None,
    ) -> None:
        self.entries: list[dict[str, Any]] = []
        self.scaler: torch.amp.GradScaler | None = None
        self.averages: AveragesRestored | None = None
        self._model, self._optimizer, self._interval = model, optimizer, interval
        self._store = SnapshotStore(memory)
        self._memory = OptimizerMemory(optimizer)
        known = trained or (lambda: set(map(id, self._parts())))
        self._averages: MovingAverages | None = MovingAverages(Averages(model, holders, known))
        self._since = 0
        self._resumed: int | None = None  # the step of a state that was loaded, and is the next snapshot

    @property
    def nbytes(self) -> int:
        """Bytes that the snapshots take in memory; those in files take none."""
        return sum({id(kept): kept.nbytes for e in self.entries for kept in e["copies"].everything}.values())

    def begin(self, step: int, extra: Any = None) -> None:
        """Remove all, and take the first snapshot: of weights that have not been trained yet."""
        self.entries = []
        self.take(step, first=True, extra=extra)

    def take_resumed(self, extra: Callable[[], Any]) -> None:
        """Take a snapshot of a state that was loaded, if one was: called before the step that follows."""
        if self._resumed is not None:
            step, self._resumed = self._resumed, None
            self.take(step, extra=extra(), resumed=True)

    def note(
        self, step: int, calm: bool, is_wrong: bool, extra: Callable[[], Any] | None = None, readings: int = 1
    ) -> None:
        """Note a reading that has been judged, before its step is taken; take a snapshot if all is calm and it is time.

        Args:
            step: The number of the step.
            calm: Nothing is wrong or about to be.
            is_wrong: Something is wrong. A run that is often near an alert that does not come keeps its snapshots: they
                only take longer to be trusted.
            extra: Returns plain data to keep with a snapshot; asked only if one is taken.
            readings: So many readings in a row, of which at most the last is one at which a snapshot is taken.
        """
        if not calm:
            if is_wrong:  # snapshots taken shortly before may have been affected already
                self.entries = [e for e in self.entries if e["calm"] >= LIMITS.trusted or e["first"] or e["resumed"]]
            return
        for entry in self.entries:
            entry["calm"] += readings
        self._since += readings
        interval = self._interval
        if self._store.uses_files and self._since > LIMITS.rarely * interval:
            interval *= LIMITS.rarely
        if self._since % interval == 0:
            self.take(step, extra=None if extra is None else extra())

    @property
    def until_due(self) -> int:
        """How many calm readings there are to the one at which a snapshot is taken, that one included."""
        return 0 if self._resumed is not None else self._interval - self._since % self._interval

    def take(self, step: int, first: bool = False, extra: Any = None, resumed: bool = False) -> None:
        """Take a snapshot now, and remove one if there are too many; the training goes on if it cannot be taken."""
        try:
            self._take(step, first, extra, resumed)
        except Exception as error:  # an optimizer's state of a class that cannot be copied
            self._store.refused(f"{type(error).__name__}: {error}")

    @torch.no_grad()
    def _take(self, step: int, first: bool, extra: Any, resumed: bool) -> None:
        parts, buffers = self._parts(), [b for b in self._model.buffers() if b is not None]
        packer = Packer({id(part) for part in parts})
        optimizer = self._memory.pack(packer)
        averages = [] if self._averages is None else self._averages.note()
        tensors = [*parts, *buffers, *packer.tensors, *(tensor for kept in averages for tensor in kept.to_copy)]
        latest = [*self.entries[-1]["copies"].parameters, *self.entries[-1]["copies"].buffers] if self.entries else []
        training = 2 * size_of(parts) + size_of(packer.tensors)
        kept = self._store.keep(tensors, training, self.nbytes, LIMITS.most, latest)
        if kept is None:
            return
        ends = list(accumulate(map(len, (parts, buffers, packer.tensors))))
        rest: Sequence[KeptTensor] = kept[ends[2] :]
        for average in averages:
            rest = average.take_copies(rest)
        parts_of = kept[: ends[0]], kept[ends[0] : ends[1]], kept[ends[1] : ends[2]]
        self._make_room(step)
        self.entries.append(
            {
                "step": step,
                "first": first,
                "resumed": resumed,
                "calm": 0,
                "rate": rate_on_host(self._optimizer),
                "beside": plain_copy(extra),
                "scaler": [value.detach().clone() for value in scale_of(self.scaler)],
                "copies": _Copies(*parts_of, optimizer, averages, self._shapes()),
            }
        )

    def _make_room(self, step: int) -> None:
        later = [entry for entry in self.entries if not entry["first"]]
        if len(later) >= LIMITS.most - 1:
            # Ages shall grow by factors: the one whose successor is nearly as old is removed.
            spared = min(later[:-1], key=lambda e: (step - e["step"]) / (step - later[later.index(e) + 1]["step"] + 1))
            self.entries.remove(spared)

    def latest(self, before: int | None = None, trusts_all: bool = False) -> dict[str, Any] | None:
        """Return the youngest trusted snapshot, the first one counting as such; None if there is none.

        Args:
            before: Only those that are older than this step.
            trusts_all: That step was seen to be well, so none before it needs to have stood the test of time.
        """
        trusted = [e for e in self.entries if trusts_all or e["first"] or e["resumed"] or e["calm"] >= LIMITS.trusted]
        return next((e for e in reversed(trusted) if self._fits(e) and (before is None or e["step"] < before)), None)

    @property
    def oldest(self) -> dict[str, Any] | None:
        """The oldest snapshot; None if there is none."""
        return next(filter(self._fits, self.entries), None)

    @property
    def first(self) -> dict[str, Any] | None:
        """The snapshot from before the first step; None if there is none."""
        return None if self.oldest is None or not self.oldest["first"] else self.oldest

    def _fits(self, entry: Mapping[str, Any]) -> bool:
        """False once parameters or buffers have other shapes, as in a fine-tuning schedule."""
        return bool(self._shapes() == entry["copies"].shapes)

    def _parts(self) -> list[Tensor]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _shapes(self) -> list[torch.Size]:
        return [tensor.shape for tensor in (*self._parts(), *self._model.buffers())]

    def first_parameters(self) -> dict[int, Tensor]:
        """The parameters as they were before the first step, by the id of the parameter; none if they are gone."""
        return {} if self.first is None else self.parameters(self.first)

    def parameters(self, entry: Mapping[str, Any]) -> dict[int, Tensor]:
        """The parameters of a snapshot, by the id of the parameter."""
        copies: _Copies = entry["copies"]
        return {id(part): kept.get() for part, kept in zip(self._parts(), copies.parameters, strict=True)}

    def buffers(self, entry: Mapping[str, Any]) -> list[Tensor]:
        """The buffers of a snapshot, in the model's order."""
        return [kept.get() for kept in entry["copies"].buffers]

    @torch.no_grad()
    def restore(self, entry: Mapping[str, Any]) -> None:
        """Restore a snapshot."""
        copies: _Copies = entry["copies"]
        now = [*self._parts(), *self._model.buffers()]
        for tensor, kept in zip(now, [*copies.parameters, *copies.buffers], strict=True):
            put(tensor, kept.get())
        self.restore_memory(entry)
        if self._averages is not None:
            self.averages = self._averages.restore(copies.averages)
        self.restore_scale(entry)
        self.entries = [e for e in self.entries if e["step"] <= entry["step"]]

    def restore_memory(self, entry: Mapping[str, Any]) -> None:
        """Restore what the optimizer remembered, and leave the weights as they are."""
        copies: _Copies = entry["copies"]
        self._memory.restore(copies.optimizer, lambda number: copies.state[number].get())

    @torch.no_grad()
    def restore_scale(self, entry: Mapping[str, Any] | None = None) -> None:
        """Restore the loss scale of a snapshot, by default of the latest one; overflows since may have lowered it."""
        entry = entry or self.latest() or {}
        for mine, kept in zip(scale_of(self.scaler), entry.get("scaler", ()), strict=False):
            mine.copy_(kept)

    def put_back_into(self, optimizer: torch.optim.Optimizer) -> Snapshots:
        """The same snapshots, for another optimizer of the same parameters; changes do not affect this object."""
        made = copy.copy(self)
        made._optimizer, made.entries, made.scaler = optimizer, list(self.entries), None
        made._memory, made._averages = self._memory.of(optimizer), None  # a trial does not move averages
        return made

    def restart_averages(self) -> None:
        """Let averages that count begin again with the present weights, which were just initialised."""
        if self._averages is not None:
            self.averages = self._averages.restart()

    def forget_first(self) -> None:
        """Remove the first snapshot: its weights are too old to start over with."""
        self.entries = [e for e in self.entries if not e["first"]]

    def close(self) -> None:
        """Take the hooks out of the optimizer."""
        self._memory.close()

    def state_dict(self) -> dict[str, Any]:
        """Return when the next snapshot is due: the checkpoint itself is one."""
        return {"since": self._since, "step": self.entries[-1]["step"] if self.entries else 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, with what the model and the optimizer are before the step that follows."""
        self._since = state["since"]
        self.entries, self._resumed = [], state.get("step", 0)
