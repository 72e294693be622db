"""Residual connections."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure, Touches
from grad_callbacks.doctor.inspection import Inspection, LayerFound
from grad_callbacks.doctor.setup import Setup

FEWEST = 3  # layers of equal shape: fewer are no depth


class Residual(Cure):
    """Adds its input to every layer of equal input and output shape, behind its activation where that is its own.

    Branches are divided by the root of their number, so that the signal does not grow with the depth.
    """

    slot: ClassVar[str] = "residual"
    touches: ClassVar[Touches] = "modules"
    name = "Residual connections"

    def applies(self, ill: Attempt) -> bool:
        """True if the net has enough of these layers, and no such sums yet."""
        return len(_places(ill.inspection)) >= FEWEST

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Register hooks that add."""
        places = _places(known)
        scale = 1 / math.sqrt(len(places))
        used = [layer.activation for layer in known.layers]
        for layer in places:
            is_own = bool(layer.activation) and used.count(layer.activation) == 1
            end = layer.activation if is_own else layer.name
            around = _Around(scale)
            setup.module.get_submodule(layer.name).register_forward_pre_hook(around.keep)
            setup.module.get_submodule(end).register_forward_hook(around.add)
        first, last = places[0].name, places[-1].name
        return [
            f"`x = x + block(x) / {len(places)} ** 0.5` for the {len(places)} blocks of equal width, {first} to {last}"
        ]


class _Around:
    """Keeps what goes into a block and adds it to what comes out."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._kept: Tensor | None = None

    def keep(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self._kept = inputs[0]

    def add(self, module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        kept, self._kept = self._kept, None
        if kept is None or kept.shape != output.shape:
            return output
        return kept + output * self._scale


def _places(known: Inspection) -> list[LayerFound]:
    return [
        layer
        for layer in known.layers[:-1]
        if layer.keeps_shape
        and layer.calls == 1
        and (layer.kind == "Linear" or layer.kind.startswith("Conv"))
        and "Add" not in layer.follows
    ]
