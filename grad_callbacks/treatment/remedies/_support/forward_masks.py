"""Replace NaN and infinite entries in the forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.eval_mode_output import LIMITS as OUTPUTS
from grad_callbacks.treatment.remedies._support.eval_mode_output import in_evaluation
from grad_callbacks.treatment.remedies._support.forward_hooks import InForward

Change = Callable[[Any], Any]
Bounds = list[float]  # the least and the greatest that is let through; one of them is infinite
IN_EVALUATION: Bounds = []  # in place of bounds: the module's output in evaluation


@dataclass(frozen=True)
class ForwardMasksThresholds(Thresholds):
    """The numbers of :class:`ForwardMasks`."""

    most_replaced: float = threshold(
        0.9,
        "share of a tensor's entries that may be replaced",
        unit="1",
        source="measured: with 0.95 and more every second run needed another remedy",
    )
    tails: tuple[float, ...] = threshold(
        (0.5, 0.25, 0.1, 0.0),
        "shares of the finite entries that may lie beyond the bound, all of which are tried",
        unit="1",
        source="not measured",
    )


LIMITS = ForwardMasksThresholds()


class ForwardMasks(InForward):
    """Replaces NaN and infinite entries in the inputs and outputs of modules by finite numbers.

    Where a module makes them in training only, each tensor that has any is replaced by the module's output in
    evaluation: the model learns with what it is evaluated with. The module is called twice in training then. Elsewhere
    they are replaced by a bound.

    The bound is the least of the finite entries, or leaves some of them below it; where most infinities are positive,
    it is an upper one in the same way. It is what the operation gives near the edge of where it is defined, as if its
    argument were clamped there. Entries beyond the bound are set to it as well: the derivative of a log or a quotient
    grows without limit towards the edge. With zero, the mean or the edge itself, networks with a log inside became
    unstable; with the bound they learned as well as healthy ones.
    No gradient flows back through replaced entries, except what an undefined derivative makes of the zero. A tensor
    whose entries are all finite stays the same to the bit.

    The masks are there in evaluation too: the network has learned with them. A copy has none until it is attached.

    Attributes:
        places: The bounds, by places such as ``"output of encoder.2"`` or ``"input of head"``; empty ones stand for
            the module's output in evaluation.
        masked: Whether there was anything to replace, scalars of the passes that gradients may be taken of; the reader
            empties the list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Bounds] = {}
        self.masked: list[Tensor] = []

    def _hook_into(self, model: nn.Module) -> Iterator[RemovableHandle]:
        modules = dict(model.named_modules())
        for place, bounds in self.places.items():
            what, _, name = place.partition(" of ")
            if name in modules and not bounds:
                yield modules[name].register_forward_hook(self._as_in_evaluation, with_kwargs=True)
            elif name in modules:
                yield _put(modules[name], what, partial(self._mask, bounds))

    def _mask(self, bounds: Bounds, value: Any) -> Any:
        return tree_map(partial(self._bounded, bounds), value)

    def _bounded(self, bounds: Bounds, value: Any) -> Any:
        if not _may_be_masked(value):
            return value
        is_good = torch.isfinite(value)
        if torch.is_grad_enabled():
            self.masked.append(~is_good.all())
        return value.where(is_good.all(), _bounded(value, is_good, bounds))

    def _as_in_evaluation(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        instead = in_evaluation(module, args, kwargs, output) if module.training else None
        return output if instead is None else tree_map(self._replaced, output, instead)

    def _replaced(self, value: Any, instead: Any) -> Any:
        if not _may_be_masked(value):
            return value
        is_good = torch.isfinite(value).all()
        if torch.is_grad_enabled():
            self.masked.append(~is_good)
        return value.where(is_good, instead.to(value.dtype))


def described(places: dict[str, Bounds]) -> str:
    """Return places and bounds as text."""
    return ", ".join(f"{place} {_described(bounds)}" for place, bounds in places.items())


def _described(bounds: Bounds) -> str:
    if not bounds:
        return "as in evaluation"
    low, high = bounds
    return f"at least {low:.3g}" if math.isfinite(low) else f"at most {high:.3g}"


def undefined_places(model: nn.Module, replay: Callable[[], Tensor] | None) -> dict[str, Bounds] | None:
    """Run a batch again and find the places where the first undefined numbers come from, in their order.

    An operation of a module, or of a hook on it, is found behind the module; one between two modules in front of the
    second. Each is masked at once, so that the next to be found is no consequence of it. Of the bounds that
    ``LIMITS.tails`` give, those with the smallest loss are taken. The model is left as it was.

    Args:
        model: The model.
        replay: Computes the loss of the batch.

    Returns:
        The places and their bounds; empty if all is finite. None if a mask would not help: data or weights are not
        finite, numbers overflow, hardly any entry is finite, or the model cannot be run.
    """
    if replay is None or not all(bool(torch.isfinite(tensor).all()) for tensor in model.parameters()):
        return None
    searches = [_Search(tail) for tail in LIMITS.tails]
    try:
        for search in searches:  # as many passes on each process, for what they exchange in them
            with undisturbed(model):
                search.run(model, replay)
    except Exception:  # the user's code
        return None
    if any(search.is_hopeless for search in searches):
        return None
    return min(searches, key=lambda search: search.loss).found


class _Search:
    """Looks at the inputs and outputs of each module, and bounds them.

    Attributes:
        found: The bounds, by place.
        loss: With them; infinite if it is not finite.
        is_hopeless: A mask would not help.
    """

    def __init__(self, tail: float) -> None:
        self.found: dict[str, Bounds] = {}
        self.loss = math.inf
        self.is_hopeless = False
        self._tail = tail

    def run(self, model: nn.Module, replay: Callable[[], Tensor]) -> None:
        handles: list[RemovableHandle] = []
        try:
            for name, module in model.named_modules():
                for what in ("input", "output"):
                    handles.append(_put(module, what, partial(self._look, f"{what} of {name}")))
            loss = float(replay())
            self.loss = loss if math.isfinite(loss) else math.inf
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, place: str, value: Any) -> Any:
        return tree_map(partial(self._look_at, place), value)

    def _look_at(self, place: str, value: Any) -> Any:
        if not _may_be_masked(value):
            return value
        is_good = torch.isfinite(value)
        finite = value.detach()[is_good]
        self.is_hopeless |= bool((finite > OUTPUTS.overflowing).any())
        if is_good.all():
            return value
        if place.startswith("input") and not value.requires_grad:  # data, or a mask made of them
            self.is_hopeless |= not bool((is_good | torch.isneginf(value)).all())
            return value
        self.is_hopeless |= value.dtype is torch.float16 or finite.numel() < (1 - LIMITS.most_replaced) * value.numel()
        if self.is_hopeless:
            return value
        bounds = _bounds(finite, self._tail, bool(value.isposinf().sum() > value.isneginf().sum()))
        self.found.setdefault(place, bounds)
        return _bounded(value, is_good, bounds)


def _bounds(finite: Tensor, tail: float, is_above: bool) -> Bounds:
    """The bounds that leave the share ``tail`` of the finite numbers beyond them."""
    rank = 1 + round(tail * (finite.numel() - 1))
    if is_above:
        return [-math.inf, float(finite.float().kthvalue(finite.numel() + 1 - rank).values)]
    return [float(finite.float().kthvalue(rank).values), math.inf]


def _bounded(value: Tensor, is_good: Tensor, bounds: Bounds) -> Tensor:
    """Set entries that are not finite, or lie beyond the bounds, to the finite bound."""
    bound = bounds[0] if math.isfinite(bounds[0]) else bounds[1]
    return value.where(is_good, torch.full_like(value, bound)).clamp(*bounds)


def _put(module: nn.Module, what: str, change: Change) -> RemovableHandle:
    """Change what a module returns, or the arguments that it is called with."""
    if what == "output":
        return module.register_forward_hook(partial(_change_output, change))
    return module.register_forward_pre_hook(partial(_change_inputs, change), with_kwargs=True)


def _change_output(change: Change, module: nn.Module, inputs: object, output: Any) -> Any:
    return change(output)


def _change_inputs(change: Change, module: nn.Module, inputs: Any, named: Any) -> tuple[Any, Any]:
    return change(inputs), change(named)


def _may_be_masked(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.layout is torch.strided and value.numel() > 0
    )
