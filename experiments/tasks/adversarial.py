"""Adversarial training: two optimizers in manual optimization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from experiments.models import Adversaries
from experiments.tasks.base import MakeOptimizer, Task


class Adversarial(Task):
    """Trains a generator against a discriminator; logs ``train/loss``, the sum of both, and ``val/quality``.

    Each batch makes two steps, one of either. The quality of a run is 1 minus the energy distance (Székely & Rizzo
    2013) of generated points from real ones, as a share of that of the real ones' mean, which a collapsed generator
    would repeat.

    Args:
        model: Generator and discriminator.
        optimizer: Makes the optimizer of each.
        schedule: Must be ``None``.
        generator_rate: The generator's learning rate, as a multiple of the discriminator's.
    """

    model: Adversaries

    def __init__(
        self, model: Adversaries, optimizer: MakeOptimizer, schedule: None = None, generator_rate: float = 1.0
    ) -> None:
        if schedule is not None:
            raise ValueError("adversarial training takes no schedule")
        super().__init__(model, optimizer)
        self.automatic_optimization = False
        self.generator_rate = generator_rate

    def configure_optimizers(self) -> Any:
        """Make an optimizer for the generator and one for the discriminator."""
        optimizers = [
            self._make_optimizer(player.parameters()) for player in (self.model.generator, self.model.discriminator)
        ]
        for group in optimizers[0].param_groups:
            group["lr"] *= self.generator_rate
        return optimizers

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Let both make a step."""
        real = batch[0]
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        fake = self.model(len(real))
        told = softplus(-self.model.discriminator(real)).mean()
        told = told + softplus(self.model.discriminator(fake.detach())).mean()
        discriminator.zero_grad()
        self.manual_backward(told)
        discriminator.step()
        fooled = softplus(-self.model.discriminator(fake)).mean()
        generator.zero_grad()
        self.manual_backward(fooled)
        generator.step()
        self.log("train/loss", (told + fooled).detach())

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the quality."""
        real = batch[0]
        collapsed = real.mean(dim=0, keepdim=True)
        distance, worst = energy_distance(self.model(len(real)), real), energy_distance(collapsed, real)
        self.log("val/quality", 1 - distance / worst, batch_size=len(real))


def energy_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the energy distance of two sets of points ``(count, features)``; zero if they are the same."""

    def mean(one: Tensor, other: Tensor) -> Tensor:
        return torch.cdist(one, other).mean()

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)
