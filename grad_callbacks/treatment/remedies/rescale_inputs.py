"""Bring inputs back to the unit that the model has learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from statistics import median_low
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks.events import Evidence
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.forward_hooks import InForward
from grad_callbacks.treatment.remedies._support.input_scale import InputSizes, float_tensors, is_known, size_of
from grad_callbacks.treatment.remedies._support.replayed_loss import can_be_replayed, from_all, replayed_loss
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState

CHANGED = 30.0  # times the usual size: units differ by more, and batches of one unit by less
STANDARD = 1.0  # the size that inputs should have (LeCun et al. 1998, "Efficient BackProp", sec. 4.3)
ALIKE = 1e-3  # by which the sizes of a tensor and its cast to another type may differ
MUCH = 2.0  # times the loss that the weights of a snapshot give


@dataclass(frozen=True)
class Change:
    """An input of a module that comes in another unit.

    Attributes:
        module: The module's name; "" for the whole model.
        argument: The input's place among the arguments, or its name.
        divisor: How many times as large it is.
        usual: Its size before.
        in_place: The batch itself is divided, since the loss looks at it too.
    """

    module: str
    argument: int | str
    divisor: float
    usual: float
    in_place: bool = False

    @property
    def limit(self) -> float:
        """The size from which on a batch counts as one in the other unit."""
        return math.sqrt(self.divisor) * self.usual


class RescaleInputs(InForward, Remedy):
    """Divides inputs that come in another unit than before by how many times as large they have become.

    Every 25 readings it notes the size of each tensor in the batch, while all is well: the squared mean root of its
    entries, which a few wild ones hardly move. If one is 30 times its median at an alert, the batch is run again to see
    which modules take that tensor in, and from then on they get it divided, the outermost ones that see it. A batch is
    divided only if it is large itself: above the geometric mean of the two sizes. So a batch in the old unit,
    validation data say, is left as it is, in training and in evaluation alike, and after a single bad batch nothing is
    divided until another comes.

    It is kept only if the loss of the batch is finite with it, no larger than without, and no larger than where the run
    began: batches that are wrong in more than their unit are for other remedies. Steps that were taken with the large
    inputs have thrown the weights, or an adaptive optimizer's averages for long, and running statistics have seen them
    in any case: then, and wherever that gives less than half the loss, it goes back to the latest healthy snapshot. The
    step at hand is skipped, and a loss scaler gets its scale back.

    If the loss needs the inputs too, as an autoencoder's does, the batch itself is divided.

    A tensor is recognised behind views, casts and transpositions, not behind arithmetic in ``training_step``. What was
    in a wrong unit from the first step on cannot be told, unless it overflows 16 bits there: then inputs of size 30 and
    more are brought to 1. Nor can be told what has become smaller. Needs a ``training_step`` that
    can be run again; compiled and sharded models are left alone. The hooks live as long as the training.

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
        self._hooks: list[_Divide] = []

    def note(self, step: OptimizerStep, is_well: bool) -> None:
        """Look at the batch of a reading."""
        if step.run_state is not None:
            self._sizes.note(step.run_state.batch.content, step.run_state.readings, is_well)

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Divide what has come in another unit, and skip the step at hand; None if nothing has."""
        run_state = step.run_state
        if run_state is None or step.layers.sharding is not None:
            return None
        changed = self._changed(run_state, step.reading.overflow)
        new = _agreed(_takers(run_state, changed)) if all(from_all(bool(changed))) else None
        if not new or not self._is_news(new):
            return None
        has_stepped = step.is_taken or (self._were_large(changed) and not step.reading.overflow)
        before, loss_before = self.changes, replayed_loss(run_state)
        for in_place in (False, True):
            self._put(before, [replace(change, in_place=in_place) for change in new], run_state)
            loss, entry = self._try_out(run_state, has_stepped)
            at_start = run_state.loss_level.scale if run_state.loss_level is not None else math.nan
            if math.isfinite(loss) and not loss > loss_before and not loss > at_start:
                self._skip_next = True
                return self._told(new) | _go_back(run_state, entry)
        self._put(before, [], run_state)
        return None

    def _put(self, before: Sequence[Change], new: Sequence[Change], run_state: RunState) -> None:
        """Let what is new take the place of what was there before."""
        known = {(change.module, change.argument) for change in new}
        self.changes = [change for change in before if (change.module, change.argument) not in known] + list(new)
        self.attach(run_state.model)

    def _try_out(self, run_state: RunState, has_stepped: bool) -> tuple[float, Mapping[str, Any] | None]:
        """The loss with it, and the snapshot that it comes from, if it is better to go back."""
        loss = replayed_loss(run_state)
        entry = run_state.snapshots.latest() if run_state.snapshots is not None else None
        if run_state.snapshots is None or entry is None:
            return loss, None
        loss_there = replayed_loss(run_state, run_state.snapshots.parameters(entry))
        has_done_harm = all(from_all(has_stepped or _has_moved_buffers(run_state.model, entry)))
        goes_back = math.isfinite(loss_there) and (has_done_harm or not loss_there > loss / MUCH)
        return (loss_there, entry) if goes_back else (loss, None)

    def _is_news(self, new: Sequence[Change]) -> bool:
        """False if the inputs are divided by that already."""
        known = {(change.module, change.argument): change.divisor for change in self.changes}
        ratios = [change.divisor / known.get((change.module, change.argument), 1.0) for change in new]
        return any(abs(math.log(ratio)) > 0.5 * math.log(CHANGED) for ratio in ratios)

    def _changed(self, run_state: RunState, overflow: bool) -> dict[int, Change]:
        """Which of the batch's tensors are too large, by their place, and how large they were, or should have been."""
        tensors = float_tensors(run_state.batch.content)
        usual = self._sizes.usual(len(tensors))
        if usual is None and run_state.readings <= 1 and overflow:
            usual = [STANDARD] * len(tensors)
        found = {}
        for place, (tensor, size) in enumerate(zip(tensors, usual or [], strict=False)):
            ratio = float(size_of(tensor)) / size if size > 0 else math.nan
            if math.isfinite(ratio) and ratio >= CHANGED:
                found[place] = Change("", 0, ratio, size)
        return found

    def _were_large(self, changed: Mapping[int, Change]) -> bool:
        """True if they were as large in the batch before."""
        before = dict(enumerate(self._sizes.before()))
        return any(before.get(place, 0.0) > change.limit for place, change in changed.items())

    def _told(self, new: Sequence[Change]) -> dict[str, Any]:
        modules = ", ".join(dict.fromkeys(change.module or "the whole model" for change in new))
        return {"modules": modules, "divisor": new[0].divisor, "usual_size": new[0].usual}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the alert's step; tell whether the batches since the last step were divided."""
        flags = [hook.take_flag() for hook in self._hooks]
        if self._skips(step):
            return True
        acted = [flag for flag in flags if flag is not None]
        return torch.stack([flag.to(acted[0].device) for flag in acted]).any() if acted else False

    def _hook_into(self, model: nn.Module) -> Iterator[RemovableHandle]:
        known = {hook.change: hook for hook in self._hooks}  # what they have seen is still to be told
        self._hooks = [known.get(change) or _Divide(change) for change in self.changes]
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


class _Divide:
    """The hook: divides an input of a module where it is large, without waiting for the device."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self._flag: Tensor | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        inputs = _by_argument(args, kwargs)
        value = inputs.get(self.change.argument)
        if value is None or not is_known(value):
            return None
        is_large = size_of(value) > self.change.limit
        self._flag = is_large if self._flag is None else self._flag | is_large.to(self._flag.device)
        wide = value.to(torch.promote_types(value.dtype, torch.float32))  # float16 has no room for large divisors
        divided = (wide / torch.where(is_large, self.change.divisor, 1.0)).to(value.dtype)
        inputs[self.change.argument] = value.detach().copy_(divided) if self.change.in_place else divided
        return tuple(inputs[place] for place in range(len(args))), {name: inputs[name] for name in kwargs}

    def take_flag(self) -> Tensor | None:
        """Whether anything was divided since the last call; None if nothing has come."""
        flag, self._flag = self._flag, None
        return flag


def _takers(run_state: RunState, changed: Mapping[int, Change]) -> list[Change] | None:
    """Run the batch again, and see which modules take the changed tensors in, the outermost ones; None for none."""
    if not can_be_replayed(run_state):
        return None
    assert run_state.batch.replay is not None
    tensors = float_tensors(run_state.batch.content)
    wanted = [(tensors[place], change) for place, change in changed.items()]
    found: dict[tuple[str, int | str], Change] = {}

    def look(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for argument, value in _by_argument(args, kwargs).items():
            for tensor, change in wanted:
                if is_known(value) and _is_same(value, tensor, change.divisor * change.usual):
                    found[name, argument] = replace(change, module=name, argument=argument)

    with suppress(Exception), ExitStack() as stack:  # the user's code
        for name, module in run_state.model.named_modules():
            # Before the hooks that are there already: what they make of it is another tensor.
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: look(name, args, kwargs), prepend=True, with_kwargs=True
            )
            stack.callback(handle.remove)
        with undisturbed(run_state.model):
            run_state.batch.replay()
    names = {name for name, _ in found}
    return [change for change in found.values() if not any(_lies_in(change.module, other) for other in names)] or None


def _by_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[int | str, Any]:
    return dict(enumerate(args)) | dict(kwargs)


def _is_same(value: Tensor, tensor: Tensor, size: float) -> bool:
    """True for the tensor itself, a view of all of it, or a copy in another order or type."""
    if value.numel() != tensor.numel():
        return False
    is_view = value.data_ptr() == tensor.data_ptr() and value.dtype == tensor.dtype
    return is_view or math.isclose(float(size_of(value)), size, rel_tol=ALIKE)


def _lies_in(name: str, other: str) -> bool:
    return name != other and (not other or name.startswith(f"{other}."))


def _agreed(found: list[Change] | None) -> list[Change] | None:
    """What all processes have found, if that is the same but for the numbers; None else."""
    each = from_all(found)
    if any(changes is None for changes in each):
        return None
    columns = list(zip(*(changes or [] for changes in each), strict=False))
    if any(len({(c.module, c.argument) for c in column}) > 1 for column in columns) or len(set(map(len, each))) > 1:  # type: ignore[arg-type]
        return None
    middle = [(median_low(c.divisor for c in column), median_low(c.usual for c in column)) for column in columns]
    return [replace(c[0], divisor=by, usual=usual) for c, (by, usual) in zip(columns, middle, strict=True)]


def _has_moved_buffers(model: nn.Module, entry: Mapping[str, Any]) -> bool:
    """True if there are statistics that follow what the model sees."""
    pairs = zip(model.buffers(), entry["buffers"], strict=True)
    return any(now.is_floating_point() and not torch.equal(now, then.to(now.device)) for now, then in pairs)


def _go_back(run_state: RunState, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """Put the snapshot in place, if one is given, and the loss scale of the latest one else; say what was done."""
    if run_state.snapshots is None:
        return {}
    if entry is None:
        run_state.snapshots.restore_scale()
        return {}
    run_state.snapshots.restore(entry)
    run_state.restarted_from = entry
    return {"to_step": entry["step"]}
