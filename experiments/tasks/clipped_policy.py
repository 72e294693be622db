"""Learning from rewards, several steps with each batch of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule
from experiments.tasks.classifier import Classifier

ENTROPY = 0.01  # weight of the bonus for a policy that still tries


class ClippedPolicy(Classifier):
    """A :class:`Classifier` that is told only whether its guesses were right, by proximal policy optimization.

    Several guesses are made for each input; the advantage of one is its reward minus the mean of the input's others.
    Each batch of guesses serves for some steps, and what its probabilities may change by is clipped (Schulman et al.
    2017).

    Args:
        model: Maps inputs to the logits of a guess.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        reuse: Steps with the same guesses.
        clip: By how much the ratio of new to old probability may differ from 1; None: by anything.
        reward: What a right guess is worth.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        reuse: int = 4,
        clip: float | None = 0.2,
        reward: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.reuse = reuse
        self.clip = clip
        self.reward = reward
        self._rollout: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the guesses that are made now, or were made some steps ago."""
        if self._rollout is None or batch_idx % self.reuse == 0:
            self._rollout = self._guess(*batch)
        inputs, guesses, before, advantages = self._rollout
        logs = self.model(inputs).log_softmax(dim=1)
        ratio = (logs.gather(1, guesses) - before).exp()
        gain = ratio * advantages
        if self.clip is not None:
            gain = torch.minimum(gain, ratio.clamp(1 - self.clip, 1 + self.clip) * advantages)
        entropy = -(logs.exp() * logs).sum(dim=1).mean()
        loss: Tensor = -gain.mean() - ENTROPY * self.reward * entropy
        self.log("train/loss", loss)
        return loss

    @torch.no_grad()
    def _guess(self, inputs: Tensor, labels: Tensor, count: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logs = self.model(inputs).log_softmax(dim=1)
        guesses = torch.multinomial(logs.exp().nan_to_num(0.0) + 1e-9, count, replacement=True)
        rewards = self.reward * (guesses == labels[:, None]).float()
        return inputs, guesses, logs.gather(1, guesses), rewards - rewards.mean(dim=1, keepdim=True)
