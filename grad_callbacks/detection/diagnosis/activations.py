"""Saturated and dead units: how much of the error the activations pass back.

A unit is saturated where its slope is below a twentieth of the steepest. Glorot & Bengio (2010, sec. 3) read saturation
off outputs near the asymptotes; for a sigmoid the limit here is an output below 0.0127 or above 0.9873, for tanh beyond
+-0.975. SageMaker Debugger's limits (tanh's input beyond +-9.4999, sigmoid's below -23 or above 16.99999) are where
float32 has no slope left at all; TheDeepChecker's (a mean bounded output above 0.85) are near those used here. A unit
is dead if it is active for no input of the batch (SageMaker: for less than 1%).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.layer_order import clean_name


@dataclass(frozen=True)
class ActivationThresholds(Thresholds):
    """Thresholds of the activation probe."""

    flat: float = threshold(
        0.05,
        "a unit is saturated where its slope is below this share of the steepest",
        unit="share of the steepest slope",
        source="not measured; the module's docstring compares it with the limits of others",
    )
    sigmoid_slope: float = threshold(0.25, "steepest slope of a sigmoid", unit="1", source="formula")
    hard_sigmoid_slope: float = threshold(1 / 6, "steepest slope of torch's hard sigmoid", unit="1", source="formula")
    image_dimensions: tuple[int, ...] = threshold(
        (4, 5), "outputs with so many dimensions have their channels in the second", unit="dimensions", source="torch"
    )
    rectified_zeros: float = threshold(
        0.1,
        "values of which more than this share is zero, none of them negative, come from a rectifier",
        unit="share of the values",
        source="not measured",
    )
    bounded_reach: float = threshold(
        0.9, "values of both signs within 1 that reach beyond this come from tanh", unit="1", source="not measured"
    )


LIMITS = ActivationThresholds()


def _sigmoid(y: Tensor) -> Tensor:
    return y / LIMITS.sigmoid_slope * (1 - y)


def _tanh(y: Tensor) -> Tensor:
    return 1 - y**2


def _softsign(y: Tensor) -> Tensor:
    return (1 - y.abs()) ** 2


def _hard_sigmoid(y: Tensor) -> Tensor:
    return ((y > 0) & (y < 1)).float()


def _hard_tanh(y: Tensor) -> Tensor:
    return ((y > -1) & (y < 1)).float()


# For each bounded activation its slope, relative to the steepest, from its output.
_SATURATING: dict[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
    "Softsign": _softsign,
    "Hardsigmoid": _hard_sigmoid,
    "Hardtanh": _hard_tanh,
}
_RECTIFIERS = ("ReLU", "ReLU6")  # those with units that can die

SATURATING = tuple(_SATURATING)


def steepest_slope(activation: str) -> float:
    """Return an activation's steepest slope by its class name; 1 but for sigmoids."""
    return {"Sigmoid": LIMITS.sigmoid_slope, "Hardsigmoid": LIMITS.hard_sigmoid_slope}.get(activation, 1.0)


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
        slope = steepest_slope(kind) * (relative**2).mean().sqrt()
        return torch.stack([(relative < LIMITS.flat).float().mean(), slope, unknown])
    if kind in _RECTIFIERS:
        active = y > 0
        return torch.stack([unknown, active.float().mean().sqrt(), _never(active)])
    return torch.stack([unknown, unknown, unknown])


def _never(active: Tensor) -> Tensor:
    """Share of the units, channels of images and last entries of all else, that are never active."""
    if active.ndim < 2:
        return active.new_tensor(math.nan, dtype=torch.float32)
    unit = 1 if active.ndim in LIMITS.image_dimensions else -1
    return 1 - active.movedim(unit, -1).flatten(0, -2).any(dim=0).float().mean()


_GUESSES = ("ReLU", "Sigmoid", "Tanh")


def _all_guesses(entering: Tensor) -> Tensor:
    """Measure a layer's input as if each of the guesses had made it: one row each, after its range and zeros."""
    x = entering.detach().float()
    about = torch.stack([x.amin(), x.amax(), (x == 0).float().mean()])
    return torch.stack([about, *(activity_of(kind, x) for kind in _GUESSES)])


def _guess(low: float, high: float, zeros: float) -> int | None:
    """Which of the guesses has made values of this range; None for none of them."""
    if low == 0 and (zeros > LIMITS.rectified_zeros or high == 0):
        return 0
    if 0 < low < high <= 1:
        return 1
    return 2 if low < 0 and LIMITS.bounded_reach < max(-low, high) <= 1 else None


class ActivationProbe:
    """Measures activations by forward hooks, which are there only between :meth:`attach` and :meth:`detach`.

    The numbers of the last forward pass stay on the device until :meth:`read` asks for them. Activations that are
    called as functions have no module: they are guessed in :meth:`read` from the input of the next layer, and only
    where the model has no activation modules.

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
        """Put the hooks in place, unless they are."""
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
        measured = torch.stack([values for _, values in self._latest.values()]).cpu()
        for (name, (kind, _)), values in zip(self._latest.items(), measured, strict=True):
            if kind:
                found[name] = Activity(kind, *values.tolist())
                continue
            about, *guesses = values.tolist()
            if (guess := _guess(*about)) is not None:
                found[name] = Activity(_GUESSES[guess], *guesses[guess])
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
    """Return the mean of the values that are not NaN; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
