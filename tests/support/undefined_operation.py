"""Networks with an operation that becomes undefined during the training."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.helpers import Regression

ADAM = partial(torch.optim.Adam, lr=0.01)


class Broken(Regression):
    """From step 20 on an operation inside the model is undefined for some numbers; batches depend on the step only."""

    def __init__(self, model: nn.Module, make: Any = ADAM, since: int = 20) -> None:
        super().__init__(model, make)
        self.since = since
        self.errors: list[float] = []
        self.validated: list[float] = []

    @property
    def part(self) -> Any:
        """The module that holds the operation."""
        return next(module for module in self.model.modules() if hasattr(module, "is_on"))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.part.is_on = self.global_step >= self.since
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(self.global_step))
        loss = nn.functional.mse_loss(self.model(inputs), inputs[:, :2])
        self.errors.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validated.append(float(nn.functional.mse_loss(self.model(batch[0]), batch[0][:, :2])))
