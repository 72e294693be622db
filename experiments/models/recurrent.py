"""Recurrent nets that read a sequence and answer at its end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.models.checks import whole_numbers

CELLS: dict[str, type[nn.RNNBase]] = {"tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """A recurrent net with a linear head on its last state.

    Args:
        in_features: Features of a step of the sequence.
        out_features: Number of outputs.
        cell: ``tanh`` (the plain recurrent net), ``lstm`` or ``gru``.
        hidden: Units of a layer.
        layers: Number of layers, one on top of the other.
        recurrent_init: ``default`` (torch's), ``orthogonal``, or ``gaussian``, which is scaled to ``spectral_radius``.
        spectral_radius: Largest absolute eigenvalue of each gate's recurrent weights under ``gaussian``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        cell: str = "gru",
        hidden: int = 64,
        layers: int = 1,
        recurrent_init: str = "default",
        spectral_radius: float = 1.0,
    ) -> None:
        super().__init__()
        whole_numbers(hidden=hidden, layers=layers)
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        self.cell = CELLS[cell](in_features, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, out_features)
        for name, parameter in self.cell.named_parameters():
            if "weight_hh" in name:
                for gate in parameter.detach().split(hidden):
                    _initialise(gate, recurrent_init, spectral_radius)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, in_features)`` to outputs ``(batch, out_features)``."""
        states, _ = self.cell(x)
        outputs: Tensor = self.head(states[:, -1])
        return outputs


def _initialise(square: Tensor, init: str, spectral_radius: float) -> None:
    if init == "orthogonal":
        nn.init.orthogonal_(square)
    elif init == "gaussian":
        nn.init.normal_(square)
        square *= spectral_radius / torch.linalg.eigvals(square).abs().max()
    elif init != "default":
        raise ValueError(f"recurrent_init must be default, orthogonal or gaussian, got {init!r}")
