"""Replacing what modules leave undefined in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from grad_callbacks.diagnosis import undisturbed

Change = Callable[[Any], Any]

MOST_OF_THEM = 0.9  # of a tensor's entries that may be replaced: the root of normalised numbers loses half of them
TAIL = 0.05  # of the finite entries are beyond what stands for the others
BEYOND = 1e10  # larger activations are on their way to an overflow: then it is not an operation that is undefined


class ForwardMasks:
    """Puts a number for the NaN and infinite entries of what comes out of modules, or goes into them.

    Nothing flows back through an entry that was replaced, except what an undefined derivative makes of the zero. All
    finite numbers, and their gradients, stay the same to the bit.

    The masks are there in evaluation too: the network has learned with them. A copy has none until it is attached.

    Attributes:
        places: What is put where, such as 0.1 for ``"output of encoder.2"`` or ``"input of head"``.
        masked: Whether there was anything to replace, scalars of the passes that may be learned from; whoever reads
            them empties the list.
    """

    def __init__(self) -> None:
        self.places: dict[str, float] = {}
        self.masked: list[Tensor] = []
        self._handles: list[RemovableHandle] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave to the original what hangs on the model."""
        return self.__dict__ | {"masked": [], "_handles": []}

    def attach(self, model: nn.Module) -> None:
        """Put the masks on a model, behind the hooks that are there."""
        self.detach()
        modules = dict(model.named_modules())
        for place, number in self.places.items():
            what, _, name = place.partition(" of ")
            if name in modules:
                self._handles.append(_put(modules[name], what, partial(self._mask, number)))

    def detach(self) -> None:
        """Take them away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _mask(self, number: float, value: Any) -> Any:
        return tree_map(partial(self._finite, number), value)

    def _finite(self, number: float, value: Any) -> Any:
        if not _may_be_masked(value):
            return value
        is_good = torch.isfinite(value)
        if torch.is_grad_enabled():
            self.masked.append(~is_good.all())
        return value.where(is_good, torch.full_like(value, number))


def undefined_places(model: nn.Module, replay: Callable[[], Tensor] | None) -> dict[str, float] | None:
    """Run a batch again and name the places where the first undefined numbers come from, in their order.

    An operation of a module, or of a hook on it, is found behind the module; one between two modules in front of the
    second. Each is masked at once, so that the next to be found is no consequence of it. Leaves no trace.

    Args:
        model: The model.
        replay: Computes the loss of the batch.

    Returns:
        The places, and what to put there; empty if all is finite. None if a mask would not do: data or weights are not
        finite, numbers overflow, or hardly any is left.
    """
    if replay is None or not all(bool(torch.isfinite(tensor).all()) for tensor in model.parameters()):
        return None
    search = _Search()
    try:
        with undisturbed(model):
            search.run(model, replay)
    except Exception:  # the user's code
        return None
    return None if search.is_hopeless else search.found


class _Search:
    """Looks at what goes into each module, and what comes out."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.is_hopeless = False

    def run(self, model: nn.Module, replay: Callable[[], Tensor]) -> None:
        handles: list[RemovableHandle] = []
        try:
            for name, module in model.named_modules():
                for what in ("input", "output"):
                    handles.append(_put(module, what, partial(self._look, f"{what} of {name}")))
            replay()
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
        self.is_hopeless |= bool((finite > BEYOND).any())
        if is_good.all():
            return value
        if place.startswith("input") and not value.requires_grad:  # data, or a mask made of them
            self.is_hopeless |= not bool((is_good | torch.isneginf(value)).all())
            return value
        self.is_hopeless |= value.dtype is torch.float16 or finite.numel() < (1 - MOST_OF_THEM) * value.numel()
        number = _edge(value.detach(), finite)
        self.found.setdefault(place, number)
        return value.where(is_good, torch.full_like(value, number))


def _edge(value: Tensor, finite: Tensor) -> float:
    """What an operation gives at the edge of where it is defined: nearly its least there, or nearly its greatest."""
    if not finite.numel():
        return 0.0
    rank = max(1, round(TAIL * finite.numel()))
    if bool(value.isposinf().sum() > value.isneginf().sum()):
        rank = finite.numel() + 1 - rank
    return float(finite.float().kthvalue(rank).values)


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
