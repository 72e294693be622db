"""Snapshots in memory of weights, buffers and optimizer state, to go back to."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.plain_copy import plain_copy
from grad_callbacks._utils.thresholds import Thresholds, threshold


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
    budget: int = threshold(4 * 2**30, "size that all snapshots together may have", unit="bytes", source="not measured")


LIMITS = SnapshotsThresholds()


class Snapshots:
    """A few ages of weights, buffers, optimizer state and loss scale, oldest first.

    The first one is from before the first step, and is kept until :meth:`forget_first`. On an accelerator they are
    copied to pinned memory of the host, which does not wait for them.

    Args:
        model: Its buffers are kept.
        optimizer: Its parameters and state are kept.
        interval: Readings between two snapshots.
        budget: Bytes that all snapshots together may take; where one would take more than a quarter of it, none is
            taken.

    Attributes:
        entries: The snapshots.
        scaler: The loss scaler that is used, if one is: its scale is kept and restored too.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        interval: int = LIMITS.interval,
        budget: int = LIMITS.budget,
    ) -> None:
        self.entries: list[dict[str, Any]] = []
        self.scaler: torch.amp.GradScaler | None = None
        self._model, self._optimizer = model, optimizer
        self._interval, self._budget = interval, budget
        self._since = 0

    @property
    def nbytes(self) -> int:
        """Bytes that the snapshots take."""
        return sum(_size(_tensors(entry)) for entry in self.entries)

    def begin(self, step: int, extra: Any = None) -> None:
        """Remove all, and take the first snapshot: of weights that have not been trained yet."""
        self.entries = []
        self.take(step, first=True, extra=extra)

    def note(self, step: int, calm: bool, is_wrong: bool, extra: Callable[[], Any] | None = None) -> None:
        """Note a reading that has been judged, before its step is taken; take a snapshot if all is calm and it is time.

        Args:
            step: The number of the step.
            calm: Nothing is wrong or about to be.
            is_wrong: Something is wrong. A run that is often near an alert that does not come keeps its snapshots: they
                only take longer to be trusted.
            extra: Returns plain data to keep with a snapshot; asked only if one is taken.
        """
        if not calm:
            if is_wrong:
                # Snapshots taken shortly before may have been affected already.
                self.entries = [e for e in self.entries if e["calm"] >= LIMITS.trusted or e["first"]]
            return
        for entry in self.entries:
            entry["calm"] += 1
        self._since += 1
        if self._since % self._interval == 0:
            self.take(step, extra=None if extra is None else extra())

    @torch.no_grad()
    def take(self, step: int, first: bool = False, extra: Any = None) -> None:
        """Take a snapshot now, and remove one if there are too many."""
        parts = [p for group in self._optimizer.param_groups for p in group["params"]]
        state = [_values(self._optimizer.state.get(p, {})) for p in parts]
        buffers = [b for b in self._model.buffers() if b is not None]
        tensors = [*parts, *buffers, *[v for s in state for v in s.values() if isinstance(v, Tensor)]]
        if LIMITS.most * _size(tensors) > self._budget:
            return
        later = [entry for entry in self.entries if not entry["first"]]
        if len(later) >= LIMITS.most - 1:
            # Ages shall grow by factors: the one whose successor is nearly as old is removed.
            spared = min(later[:-1], key=lambda e: (step - e["step"]) / (step - later[later.index(e) + 1]["step"] + 1))
            self.entries.remove(spared)
        self.entries.append(
            {
                "step": step,
                "first": first,
                "calm": 0,
                "rate": _rate(self._optimizer),
                "beside": plain_copy(extra),
                "parameters": [_kept(p) for p in parts],
                "buffers": [_kept(b) for b in buffers],
                "state": [{k: _kept(v) for k, v in s.items()} for s in state],
                "scaler": [_kept(v) for v in _of_scaler(self.scaler)],
            }
        )

    def latest(self, before: int | None = None) -> dict[str, Any] | None:
        """Return the youngest trusted snapshot, the first one counting as such; None if there is none.

        Args:
            before: Only those that are older than this step.
        """
        trusted = [e for e in self.entries if (e["first"] or e["calm"] >= LIMITS.trusted) and self._fits(e)]
        return next((e for e in reversed(trusted) if before is None or e["step"] < before), None)

    @property
    def oldest(self) -> dict[str, Any] | None:
        """The oldest snapshot; None if there is none."""
        return next((entry for entry in self.entries if self._fits(entry)), None)

    @property
    def first(self) -> dict[str, Any] | None:
        """The snapshot from before the first step; None if there is none."""
        return next((entry for entry in self.entries if entry["first"] and self._fits(entry)), None)

    def _fits(self, entry: Mapping[str, Any]) -> bool:
        """False once parameters or buffers have other shapes, as in a fine-tuning schedule."""
        now = [t.shape for group in self._optimizer.param_groups for t in group["params"]]
        buffers = [t.shape for t in self._model.buffers()]
        return now == [t.shape for t in entry["parameters"]] and buffers == [t.shape for t in entry["buffers"]]

    def first_parameters(self) -> dict[int, Tensor]:
        """The parameters as they were before the first step, by the id of the parameter; none if they are gone."""
        return {} if self.first is None else self.parameters(self.first)

    def parameters(self, entry: Mapping[str, Any]) -> dict[int, Tensor]:
        """The parameters of a snapshot, by the id of the parameter."""
        parts = [p for group in self._optimizer.param_groups for p in group["params"]]
        return dict(zip(map(id, parts), entry["parameters"], strict=True))

    @torch.no_grad()
    def restore(self, entry: Mapping[str, Any]) -> None:
        """Restore a snapshot."""
        parts = [p for group in self._optimizer.param_groups for p in group["params"]]
        for parameter, kept in zip(parts, entry["parameters"], strict=True):
            parameter.copy_(kept.to(parameter.device))
        for buffer, kept in zip(self._model.buffers(), entry["buffers"], strict=True):
            buffer.copy_(kept.to(buffer.device))
        for parameter, kept_state in zip(parts, entry["state"], strict=True):
            mine = self._optimizer.state[parameter] if kept_state else self._optimizer.state.pop(parameter, {})
            for key in [key for key in mine if key not in kept_state]:
                del mine[key]
            for key, kept in kept_state.items():
                if isinstance(kept, Tensor) and isinstance(mine.get(key), Tensor):
                    mine[key].copy_(kept.to(mine[key].device))
                else:
                    mine[key] = kept.to(parameter.device).clone() if isinstance(kept, Tensor) else copy.copy(kept)
        self.restore_scale(entry)
        self.entries = [e for e in self.entries if e["step"] <= entry["step"]]

    @torch.no_grad()
    def restore_scale(self, entry: Mapping[str, Any] | None = None) -> None:
        """Restore the loss scale of a snapshot, by default of the latest one; overflows since may have lowered it."""
        entry = entry or self.latest() or {}
        for mine, kept in zip(_of_scaler(self.scaler), entry.get("scaler", ()), strict=False):
            mine.copy_(kept)

    def put_back_into(self, optimizer: torch.optim.Optimizer) -> Snapshots:
        """The same snapshots, for another optimizer of the same parameters; changes do not affect this object."""
        made = copy.copy(self)
        made._optimizer, made.entries, made.scaler = optimizer, list(self.entries), None
        return made

    def forget_first(self) -> None:
        """Remove the first snapshot: its weights are too old to start over with."""
        self.entries = [e for e in self.entries if not e["first"]]

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshots as plain data and tensors."""
        return {"since": self._since, "entries": [dict(entry) for entry in self.entries]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._since = state["since"]
        self.entries = [dict(entry) for entry in state["entries"]]


def _rate(optimizer: torch.optim.Optimizer) -> float:
    """The first group's learning rate; NaN where it is not a number on the host."""
    rate = optimizer.param_groups[0].get("lr")
    if isinstance(rate, Tensor) and rate.device.type != "cpu":
        return math.nan
    return math.nan if rate is None else float(rate)


def _of_scaler(scaler: torch.amp.GradScaler | None) -> list[Tensor]:
    """Scale, and steps since it was last changed: as tensors, since ``scaler.state_dict`` waits for the device."""
    found = [] if scaler is None else [scaler._scale, scaler._growth_tracker]
    return [value for value in found if value is not None]


def _values(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if isinstance(value, (Tensor, int, float, bool))}


def _kept(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    if value.device.type == "cuda":
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return host.copy_(value, non_blocking=True)
    return value.clone()


def _tensors(entry: Mapping[str, Any]) -> Iterable[Tensor]:
    yield from entry["parameters"]
    yield from entry["buffers"]
    for state in entry["state"]:
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
