"""Saturated and dead units: how much of the error the activations let through.

A unit is called saturated where its slope is below a twentieth of the steepest. Glorot & Bengio (2010, sec. 3) read
saturation off outputs that hug the asymptotes; for a sigmoid the limit here is an output below 0.0127 or above 0.9873,
for tanh beyond +-0.975. SageMaker Debugger's limits (tanh's input beyond +-9.4999, sigmoid's below -23 or above
16.99999) are where float32 has no slope left at all, and TheDeepChecker's (a mean bounded output above 0.85) lie near
these. A unit is dead that is active for no input of the batch (SageMaker: for less than 1%).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks.measurement.layer_order import clean_name

FLAT = 0.05  # of the steepest slope


def _between(low: float, high: float, y: Tensor) -> Tensor:
    return ((y > low) & (y < high)).float()


# For each bounded activation its slope, relative to the steepest, from its output.
_SATURATING: dict[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": lambda y: 4 * y * (1 - y),
    "Tanh": lambda y: 1 - y**2,
    "Softsign": lambda y: (1 - y.abs()) ** 2,
    "Hardsigmoid": partial(_between, 0.0, 1.0),
    "Hardtanh": partial(_between, -1.0, 1.0),
}
_STEEPEST = {"Sigmoid": 0.25, "Hardsigmoid": 1 / 6}  # of the others: 1
_RECTIFIERS = ("ReLU", "ReLU6")  # those with units that can die

SATURATING = tuple(_SATURATING)


@dataclass(frozen=True)
class Activity:
    """What one activation did in a forward pass.

    Attributes:
        kind: Its class, such as ``"Sigmoid"``.
        saturated: Share of its outputs that are saturated; NaN if its kind does not saturate.
        slope: Root mean square of its slope, the factor by which the error shrinks here; NaN if unknown.
        dead: Share of its units that no input of the batch activates; NaN if its kind does not die.
    """

    kind: str
    saturated: float
    slope: float
    dead: float


@torch.no_grad()
def activity_of(kind: str, output: Tensor) -> Tensor:
    """Measure one activation's output.

    Args:
        kind: The activation's class.
        output: Its output, batch first.

    Returns:
        Saturated share, slope and dead share, shape ``(3,)``, on the output's device (see :class:`Activity`).
    """
    y = output.detach().float()
    unknown = y.new_tensor(math.nan)
    if kind in _SATURATING:
        relative = _SATURATING[kind](y)
        slope = _STEEPEST.get(kind, 1.0) * (relative**2).mean().sqrt()
        return torch.stack([(relative < FLAT).float().mean(), slope, unknown])
    if kind in _RECTIFIERS:
        active = y > 0
        return torch.stack([unknown, active.float().mean().sqrt(), _never(active)])
    return torch.stack([unknown, unknown, unknown])


def _never(active: Tensor) -> Tensor:
    """Share of the units, channels of images and last entries of all else, that are never active."""
    if active.ndim < 2:
        return active.new_tensor(math.nan, dtype=torch.float32)
    unit = 1 if active.ndim in (4, 5) else -1
    return 1 - active.movedim(unit, -1).flatten(0, -2).any(dim=0).float().mean()


_GUESSES = ("ReLU", "Sigmoid", "Tanh")


def _all_guesses(entering: Tensor) -> Tensor:
    """Measure a layer's input as if each of the guesses had made it; its range and share of zeros come first."""
    x = entering.detach().float()
    about = torch.stack([x.amin(), x.amax(), (x == 0).float().mean()])
    return torch.cat([about, *(activity_of(kind, x) for kind in _GUESSES)])


def _guess(low: float, high: float, zeros: float) -> int | None:
    """Which of the guesses has made values of this range; None for none of them."""
    if low == 0 and (zeros > 0.1 or high == 0):
        return 0
    if 0 < low < high <= 1:
        return 1
    return 2 if low < 0 and 0.9 < max(-low, high) <= 1 else None


class ActivationProbe:
    """Measures activations by forward hooks, which are there only between :meth:`attach` and :meth:`detach`.

    The numbers of the last forward pass stay on the device until :meth:`read` asks for them. Activations that are
    called as functions have no module: they are read off what enters the next layer, a guess that is made in
    :meth:`read` and only where the model has no activation modules.

    Args:
        model: Its activations are measured.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(clean_name(name), module) for name, module in model.named_modules()]
        self._modules = [(name, module) for name, module in named if is_activation(module)]
        self._layers = [] if self._modules else [(n, m) for n, m in named if isinstance(m, (nn.Linear, _Conv))][1:]
        self._handles: list[RemovableHandle] = []
        self._latest: dict[str, tuple[str, Tensor]] = {}

    def attach(self) -> None:
        """Put the hooks in place; twice is as good as once."""
        if self._handles:
            return
        for name, module in self._modules:
            self._handles.append(module.register_forward_hook(partial(self._after, name)))
        for name, module in self._layers:
            self._handles.append(module.register_forward_pre_hook(partial(self._before, name)))

    def detach(self) -> None:
        """Take the hooks away; the numbers stay."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def read(self) -> dict[str, Activity]:
        """Return the last forward pass's numbers by module name, in the order of execution; waits for the device."""
        if not self._latest:
            return {}
        found: dict[str, Activity] = {}
        numbers = [row.tolist() for row in torch.stack([values for _, values in self._latest.values()]).cpu()]
        for (name, (kind, _)), row in zip(self._latest.items(), numbers, strict=True):
            if kind:
                found[name] = Activity(kind, *row)
            elif (guess := _guess(*row[:3])) is not None:
                found[name] = Activity(_GUESSES[guess], *row[3 * guess + 3 : 3 * guess + 6])
        return found

    def _after(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            self._note(name, type(module).__name__, activity_of(type(module).__name__, output))

    def _before(self, name: str, module: nn.Module, inputs: tuple[object, ...]) -> None:
        if inputs and isinstance(entering := inputs[0], Tensor) and entering.is_floating_point() and entering.numel():
            self._note(name, "", _all_guesses(entering))

    def _note(self, name: str, kind: str, numbers: Tensor) -> None:
        self._latest.pop(name, None)  # to the end: the order is that of the last pass
        self._latest[name] = kind, numbers


_Conv = nn.modules.conv._ConvNd


def is_activation(module: nn.Module) -> bool:
    """True for torch's activation modules, attention and softmax excluded."""
    kind = type(module)
    return (
        kind.__module__ == "torch.nn.modules.activation"
        and kind is not nn.MultiheadAttention
        and "max" not in kind.__name__.lower()
    )


def mean_of(values: Iterable[float]) -> float:
    """Return the mean of the values that are no NaN; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
