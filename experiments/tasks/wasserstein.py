"""Adversarial training with a critic that is held to gradients of length one."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.models import Adversaries
from experiments.tasks.adversarial import Adversarial
from experiments.tasks.base import MakeOptimizer


class Wasserstein(Adversarial):
    """As :class:`Adversarial`, with the loss and the gradient penalty of Gulrajani et al. (2017).

    Args:
        model: As for :class:`Adversarial`.
        optimizer: As for :class:`Adversarial`.
        schedule: As for :class:`Adversarial`.
        generator_rate: As for :class:`Adversarial`.
        penalty: Weight of the gradient penalty.
        slack: Is added to the square of which the penalty takes the root: at 0 the root has no derivative.
        flat: Whether the critic starts as zero, and so with gradients of length 0.
    """

    def __init__(
        self,
        model: Adversaries,
        optimizer: MakeOptimizer,
        schedule: None = None,
        generator_rate: float = 1.0,
        penalty: float = 10.0,
        slack: float = 1e-12,
        flat: bool = False,
    ) -> None:
        super().__init__(model, optimizer, schedule, generator_rate)
        self.penalty = penalty
        self.slack = slack
        if flat:
            torch.nn.init.zeros_(model.discriminator[-1].weight)  # type: ignore[arg-type]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Let both make a step."""
        real = batch[0]
        critic = self.model.discriminator
        for_generator, for_critic = self.optimizers()  # type: ignore[attr-defined]
        fake = self.model(len(real))
        distance = critic(real).mean() - critic(fake.detach()).mean()
        told = self.penalty * self._penalty(real, fake.detach()) - distance
        for_critic.zero_grad()
        self.manual_backward(told)
        for_critic.step()
        fooled = -critic(fake).mean()
        for_generator.zero_grad()
        self.manual_backward(fooled)
        for_generator.step()
        self.log("train/loss", told.detach())

    def _penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        share = torch.rand(len(real), 1)
        between = (share * real + (1 - share) * fake).requires_grad_()
        answers = self.model.discriminator(between).sum()
        [slope] = torch.autograd.grad(answers, between, create_graph=True)
        length = (slope.square().sum(dim=1) + self.slack).sqrt()
        return (length - 1).square().mean()
