"""A recurrence that forgets, and sequences whose beginning it is to remember."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recall(nn.Module):
    """A plain recurrence that forgets within some steps, and reads at the end what it was told at the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNN(2, 24, batch_first=True)
        self.head = nn.Linear(24, 1)
        nn.init.orthogonal_(self.cell.weight_hh_l0, gain=0.4)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.cell(x)[0][:, -1])
        return outputs


def told_early(length: int = 60) -> tuple[Tensor, Tensor]:
    """Sequences with noise, and a sign at the third step that is to be told at the end."""
    targets = torch.randint(0, 2, (320, 1)) * 2.0 - 1
    inputs = torch.cat([0.1 * torch.randn(320, length, 1), torch.zeros(320, length, 1)], dim=2)
    inputs[:, 3, 1] = targets[:, 0]
    return inputs, targets
