"""Bring inputs back to the unit that the model was trained with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median_low
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import QuietBlock
from grad_callbacks.treatment.remedies._support.agreement import agreed, from_all
from grad_callbacks.treatment.remedies._support.forward_hooks import InForward
from grad_callbacks.treatment.remedies._support.input_division import Change, Divide, takers
from grad_callbacks.treatment.remedies._support.input_scale import InputSizes, float_tensors, size_of
from grad_callbacks.treatment.remedies._support.replayed_loss import replayed_loss
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState


@dataclass(frozen=True)
class RescaleInputsThresholds(Thresholds):
    """The numbers of :class:`RescaleInputs`."""

    changed: float = threshold(
        30.0,
        "size from which on an input is in another unit: units differ by more, and batches of one unit by less",
        unit="x usual size",
        source="not measured",
    )
    standard: float = threshold(
        1.0,
        "size that inputs should have",
        unit="1",
        source='LeCun et al. 1998, "Efficient BackProp", sec. 4.3',
    )


LIMITS = RescaleInputsThresholds()


class RescaleInputs(InForward, SkipNext, Remedy):
    """Divides inputs that are in another unit than before by how many times as large they have become.

    Every 25 readings it notes the size of each tensor in the batch, while all is well: the squared mean root of its
    entries, which a few outliers hardly change. If one is 30 times its median at an alert, the batch is run again to
    find the modules that take that tensor in, and from then on the outermost of them get it divided. A batch is divided
    only if it is large itself: above the geometric mean of the two sizes. So a batch in the old unit, validation data
    say, is left as it is, in training and in evaluation alike, and after a single bad batch nothing is divided until
    another comes.

    It is kept only if the loss of the batch is finite with it, no larger than without, and no larger than where the run
    began: batches that are wrong in more than their unit are for other remedies. Steps that were taken with the large
    inputs have moved the weights too far, or changed an adaptive optimizer's averages for long, and running statistics
    have seen the inputs in any case: then, and wherever that gives a smaller loss, it goes back to the latest
    healthy snapshot. The current step is skipped, and a loss scaler gets its scale back.

    If the loss needs the inputs too, as an autoencoder's does, the batch itself is divided.

    A tensor is recognised behind views, casts and transpositions, not behind arithmetic in ``training_step``. Inputs
    that were in a wrong unit from the first step on are not recognised, unless they overflow 16 bits there: then inputs
    of size 30 and more are brought to 1. Nor are inputs that have become smaller. Needs a ``training_step`` that can be
    run again; compiled and sharded models are left alone. The hooks are removed after the training.

    Attributes:
        changes: What is divided, and by what.
    """

    changes_weights = True
    may_reach_start = True
    acts_at_start = True
    needs_snapshots = True
    proves_itself = True

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []
        self._sizes = InputSizes()
        self._hooks: list[Divide] = []

    def note(self, step: OptimizerStep, is_well: bool) -> None:
        """Note the size of a reading's batch."""
        if step.run_state is not None:
            self._sizes.note(step.run_state.batch.content, step.run_state.readings, is_well)

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Divide inputs that are in another unit, and skip the current step; None if there are none."""
        run_state = step.run_state
        if run_state is None or step.layers.sharding is not None:
            return None
        changed = self._changed(run_state, step.reading.overflow)
        new = agreed(takers(run_state, changed), _alike) if all(from_all(bool(changed))) else None
        if not new or not self._is_news(new):
            return None
        has_stepped = step.is_taken or (self._were_large(changed) and not step.reading.overflow)
        before, loss_before = self.changes, replayed_loss(run_state)
        for in_place in (False, True):
            self._put(before, [replace(change, in_place=in_place) for change in new], run_state)
            loss, entry = self._try_out(run_state, has_stepped)
            at_start = run_state.loss_level.scale if run_state.loss_level is not None else math.nan
            if math.isfinite(loss) and not loss > loss_before and not loss > at_start:
                self.skip_next_step()
                return _detail(new) | _go_back(run_state, entry)
        self._put(before, [], run_state)
        return None

    def _put(self, before: Sequence[Change], new: Sequence[Change], run_state: RunState) -> None:
        """Let new changes replace earlier ones of the same inputs."""
        known = {(change.module, change.argument) for change in new}
        self.changes = [change for change in before if (change.module, change.argument) not in known] + list(new)
        self.attach(run_state.model)

    def _try_out(self, run_state: RunState, has_stepped: bool) -> tuple[float, Mapping[str, Any] | None]:
        """The loss with the changes, and the snapshot that it comes from, if it is better to go back."""
        loss = replayed_loss(run_state)
        entry = run_state.snapshots.latest() if run_state.snapshots is not None else None
        if run_state.snapshots is None or entry is None:
            return loss, None
        loss_there = replayed_loss(run_state, run_state.snapshots.parameters(entry))
        buffers = run_state.snapshots.buffers(entry)
        has_done_harm = all(from_all(has_stepped or _has_moved_buffers(run_state.model, buffers)))
        goes_back = math.isfinite(loss_there) and (has_done_harm or not loss_there > loss)
        return (loss_there, entry) if goes_back else (loss, None)

    def _is_news(self, new: Sequence[Change]) -> bool:
        """False if the inputs are divided by that already."""
        known = {(change.module, change.argument): change.divisor for change in self.changes}
        ratios = [change.divisor / known.get((change.module, change.argument), 1.0) for change in new]
        return any(abs(math.log(ratio)) > 0.5 * math.log(LIMITS.changed) for ratio in ratios)

    def _changed(self, run_state: RunState, overflow: bool) -> dict[int, Change]:
        """Which of the batch's tensors are too large, by their place, and how large they were, or should have been."""
        tensors = float_tensors(run_state.batch.content)
        usual = self._sizes.usual(len(tensors))
        if usual is None and run_state.readings <= 1 and overflow:
            usual = [LIMITS.standard] * len(tensors)
        found = {}
        for place, (tensor, size) in enumerate(zip(tensors, usual or [], strict=False)):
            ratio = float(size_of(tensor)) / size if size > 0 else math.nan
            if math.isfinite(ratio) and ratio >= LIMITS.changed:
                found[place] = Change("", 0, ratio, size)
        return found

    def _were_large(self, changed: Mapping[int, Change]) -> bool:
        """True if they were as large in the batch before."""
        before = dict(enumerate(self._sizes.before()))
        return any(before.get(place, 0.0) > change.limit for place, change in changed.items())

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the step that raised the alert; return whether the batches since the last step were divided."""
        flags = [hook.take_flag() for hook in self._hooks]
        if self._skips(step):
            return True
        acted = [flag for flag in flags if flag is not None]
        return torch.stack([flag.to(acted[0].device) for flag in acted]).any() if acted else False

    def idle_for(self, readings: int) -> int:
        """Return the readings until it looks at a batch again, while it divides nothing."""
        return 0 if self._hooks or self._skip_next else self._sizes.until_next_look(readings)

    def take_in(self, block: QuietBlock, is_left_out: bool) -> None:
        """Keep the latest batch, and look at it if it is time: only the last of a block may be one to look at."""
        self._sizes.note(block.batch.content, block.count, is_well=True)

    def _hook_into(self, model: nn.Module) -> Iterator[RemovableHandle]:
        known = {hook.change: hook for hook in self._hooks}  # their flags have not been read yet
        self._hooks = [known.get(change) or Divide(change) for change in self.changes]
        for hook in self._hooks:
            yield model.get_submodule(hook.change.module).register_forward_pre_hook(hook, with_kwargs=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the usual sizes, and what is divided by what."""
        changes = [asdict(change) for change in self.changes]
        return {"sizes": self._sizes.state_dict(), "changes": changes, "skip_next": self._skip_next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, once :meth:`attach` has put the hooks in place."""
        self._sizes.load_state_dict(state["sizes"])
        self.changes = [Change(**change) for change in state["changes"]]
        self._skip_next = state["skip_next"]


def _detail(new: Sequence[Change]) -> dict[str, Any]:
    modules = ", ".join(dict.fromkeys(change.module or "the whole model" for change in new))
    return {"modules": modules, "divisor": new[0].divisor, "usual_size": new[0].usual}


def _alike(each: list[list[Change]]) -> list[Change] | None:
    """What all processes have found, with the median of their numbers, if the rest is the same; None else."""
    columns = list(zip(*each, strict=False))
    if any(len({(c.module, c.argument) for c in column}) > 1 for column in columns) or len(set(map(len, each))) > 1:
        return None
    middle = [(median_low(c.divisor for c in column), median_low(c.usual for c in column)) for column in columns]
    return [replace(c[0], divisor=by, usual=usual) for c, (by, usual) in zip(columns, middle, strict=True)]


def _has_moved_buffers(model: nn.Module, before: Sequence[Tensor]) -> bool:
    """True if there are statistics that follow what the model sees."""
    pairs = zip(model.buffers(), before, strict=True)
    return any(now.is_floating_point() and not torch.equal(now, then.to(now.device)) for now, then in pairs)


def _go_back(run_state: RunState, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """Restore the snapshot, if one is given, else the loss scale of the latest one; return what was done."""
    if run_state.snapshots is None:
        return {}
    if entry is None:
        run_state.snapshots.restore_scale()
        return {}
    run_state.snapshots.restore(entry)
    run_state.restarted_from = entry
    return {"to_step": entry["step"]}
