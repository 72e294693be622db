"""Finds the exponential with the largest argument, by running the batch again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.running import RunningModules, user_line
from grad_callbacks.measurement.replay import undisturbed


@dataclass(frozen=True)
class ExponentThresholds(Thresholds):
    """Threshold of the search for a large exponent."""

    large: float = threshold(
        10.0,
        "natural exponent from which on a small change of it changes all",
        unit="1",
        source="formula: exp(10) = 22000, and one step of 1 in it makes that 60000",
    )


LIMITS = ExponentThresholds()
# The softmax and its like subtract the largest argument inside one operation, so they are none of these.
_EXPONENTIALS = ("exp", "expm1", "exp2", "sinh", "cosh")


@dataclass(frozen=True)
class Exponent:
    """The exponential with the largest argument in a forward pass, of those that nothing bounds.

    Attributes:
        argument: The argument, as one of the natural exponential; NaN without any.
        operation: Its name, such as ``"exp"``.
        module: The innermost module that ran it; "" in the loss.
        line: ``"file.py:12"`` in the user's code; "" if unknown.
    """

    argument: float = math.nan
    operation: str = ""
    module: str = ""
    line: str = ""

    @property
    def is_large(self) -> bool:
        """True if what it makes leaves the range of usual numbers."""
        return self.argument > LIMITS.large


def largest_exponent(model: nn.Module, replay: Callable[[], Tensor] | None) -> Exponent:
    """Run the batch's forward pass again, and leave everything as it was.

    Args:
        model: The model.
        replay: Computes the loss of the batch; None where that is not possible.
    """
    watch = _Watch()
    if replay is not None:
        with suppress(Exception), undisturbed(model), RunningModules(model, watch.modules), watch, torch.no_grad():
            replay()
    return watch.found


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the exponential with the largest argument."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = Exponent()
        self.modules: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        if name in _EXPONENTIALS and args[0].numel() and args[0].is_floating_point():
            values = args[0].abs() if name in ("sinh", "cosh") else args[0]
            largest = values.amax()
            argument = float(largest) * (math.log(2) if name == "exp2" else 1)
            # Several that are the largest to the last bit are so by a clamp, which passes no gradient there.
            if not argument <= self.found.argument and int((values == largest).sum()) == 1:
                self.found = Exponent(argument, name, self.modules[-1] if self.modules else "", user_line())
        return func(*args, **(kwargs or {}))
