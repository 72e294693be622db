"""Normalisations in front of the activations."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure, Touches
from grad_callbacks.doctor.inspection import Inspection, LayerFound
from grad_callbacks.doctor.setup import Setup

ACTIVATIONS = {"Sigmoid", "Tanh", "ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Mish", "Softplus", "Hardtanh"}
BATCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}  # by an output's dimensions


class Normalisation(Cure):
    """Normalises the output of every layer that an activation follows and no normalisation.

    Args:
        kind: ``"batch"`` or ``"layer"``. Sequences of features and batches of one row are normalised by layer.
    """

    slot: ClassVar[str] = "norm"
    touches: ClassVar[Touches] = "modules"

    def __init__(self, kind: str = "batch") -> None:
        self.kind, self.name = kind, f"{kind.capitalize()} normalisation"

    def applies(self, ill: Attempt) -> bool:
        """True if there is such a layer."""
        return bool(_places(ill.inspection))

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Put a normalisation behind each of those layers."""
        places = _places(known)
        told = ""
        for layer in places:
            module = setup.module.get_submodule(layer.name)
            norm = self._norm(layer, known.batch_size).to(next(module.parameters()).dtype)
            module.add_module("added_norm", norm)
            module.register_forward_hook(_normalised)
            told = told or f"`nn.{norm}` after {layer.name}"
        more = f", and likewise after {len(places) - 1} more layers" if len(places) > 1 else ""
        return [f"{told}, in front of the activation{more}"]

    def _norm(self, layer: LayerFound, rows: int) -> nn.Module:
        is_sequence = layer.kind == "Linear" and layer.dimensions > 2
        if self.kind == "batch" and rows > 1 and not is_sequence and layer.calls == 1:
            return BATCH[layer.dimensions](layer.width)
        return nn.LayerNorm(layer.width) if layer.kind == "Linear" else nn.GroupNorm(1, layer.width)


def _normalised(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    made: Tensor = module.added_norm(output)  # type: ignore[operator]
    return made


def _places(known: Inspection) -> list[LayerFound]:
    plain = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
    return [
        layer
        for layer in known.layers[:-1]
        if layer.kind in plain
        and layer.dimensions in (BATCH if layer.kind != "Linear" else range(2, 6))
        and ACTIVATIONS & set(layer.follows)
        and not any("Norm" in kind for kind in layer.follows)
    ]
