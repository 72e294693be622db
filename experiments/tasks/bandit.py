"""Learning from rewards alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule
from experiments.tasks.classifier import Classifier


class Bandit(Classifier):
    """A :class:`Classifier` that is told only whether its guess was right, by the policy gradient (Williams 1992).

    Its loss is noise around zero and says nothing of the quality.

    Args:
        model: Maps inputs to the logits of a guess.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        usual: Whether the usual reward is subtracted. If not, the loss grows with the quality before it falls.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        usual: bool = True,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.usual = usual
        self._reward = 0.1

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one guess for each input."""
        inputs, labels = batch
        policy = torch.distributions.Categorical(logits=self.model(inputs))
        guess = policy.sample()
        reward = (guess == labels).float()
        loss = -((reward - self._reward if self.usual else reward) * policy.log_prob(guess)).mean()
        self._reward += 0.1 * (float(reward.mean()) - self._reward)
        self.log("train/loss", loss)
        return loss
