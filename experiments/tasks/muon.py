"""Two optimizers for one model: Muon for its matrices, AdamW for all else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer
from experiments.tasks.classifier import Classifier


class MuonClassifier(Classifier):
    """A :class:`Classifier` whose hidden matrices are trained by one optimizer, and all else by AdamW (Jordan 2024).

    Each batch makes two steps, one of either. Matrices of the first and the last layer belong to AdamW.

    Args:
        model: As for :class:`Classifier`.
        optimizer: Makes the optimizer of the matrices.
        schedule: Must be ``None``.
        loss_factor: As for :class:`Classifier`.
        rate: AdamW's learning rate.
        outer: Parts of the names of the first and the last layer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: None = None,
        loss_factor: float = 1.0,
        rate: float = 1e-3,
        outer: tuple[str, ...] = ("stem", "head", "blocks.0."),
    ) -> None:
        if schedule is not None:
            raise ValueError("two optimizers take no schedule")
        super().__init__(model, optimizer, None, loss_factor)
        self.automatic_optimization = False
        self.rate = rate
        self.outer = tuple(outer)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer of the hidden matrices."""
        return self._make_optimizer(
            [parameter for name, parameter in self._named() if self._is_hidden(name, parameter)]
        )

    def configure_optimizers(self) -> Any:
        """Make both."""
        others = [parameter for name, parameter in self._named() if not self._is_hidden(name, parameter)]
        return [self.make_optimizer(), torch.optim.AdamW(others, lr=self.rate)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Let both make a step, and return the loss."""
        optimizers: Any = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach()

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters()

    def _is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and not any(part in name for part in self.outer)
