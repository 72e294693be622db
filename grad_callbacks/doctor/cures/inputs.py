"""Standardised inputs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure, Touches
from grad_callbacks.doctor.inspection import Inspection, LayerFound
from grad_callbacks.doctor.setup import Setup

LARGE, SMALL, UNEQUAL = 3.0, 0.1, 10.0  # root mean square, and the largest feature's size over the median one


class StandardInputs(Cure):
    """Standardises each feature, or channel, of what the first layers are given."""

    slot: ClassVar[str] = "inputs"
    touches: ClassVar[Touches] = "modules"
    name = "Standardised inputs"

    def applies(self, ill: Attempt) -> bool:
        """True if they are far from standard."""
        return any(
            not SMALL <= layer.input_size <= LARGE or layer.input_spread > UNEQUAL for layer in _places(ill.inspection)
        )

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Put a normalisation without weights in front of these layers; it keeps the mean over all batches."""
        for layer in _places(known):
            module = setup.module.get_submodule(layer.name)
            module.add_module("added_standard", _Standardise())
            module.register_forward_pre_hook(_standardised)
        name = _places(known)[0].name
        return [
            "`inputs = (inputs - mean) / std`, each feature by itself, in the data; or a "
            f"`nn.BatchNorm1d(features, affine=False, momentum=None)` in front of {name}"
        ]


class _Standardise(nn.Module):
    """Subtracts the mean and divides by the deviation of all rows seen in training, feature by feature."""

    def __init__(self) -> None:
        super().__init__()
        self.norm: nn.BatchNorm1d | None = None

    def forward(self, x: Tensor, channels: int) -> Tensor:
        rows = x.movedim(channels, -1)
        if self.norm is None:
            self.norm = nn.BatchNorm1d(rows.shape[-1], affine=False, momentum=None).to(x)
        flat = rows.reshape(-1, rows.shape[-1])
        if self.training and len(flat) > 1:
            with torch.no_grad():
                self.norm.train()(flat)
        made: Tensor = self.norm.eval()(flat)
        return made.view(rows.shape).movedim(-1, channels)


def _standardised(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    channels = 1 if isinstance(module, nn.modules.conv._ConvNd) else -1
    return (module.added_standard(inputs[0], channels), *inputs[1:])


def _places(known: Inspection) -> list[LayerFound]:
    return [layer for layer in known.layers if layer.reads_data]
