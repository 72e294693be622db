"""Training that goes on from a model that was trained before."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule
from experiments.tasks.classifier import Classifier


class FineTuning(Classifier):
    """A :class:`Classifier` whose model is first trained on the data module's ``source_dataloader``.

    That happens before the Trainer's run, out of sight of its callbacks. Names are parts of parameters' names.

    Args:
        model: As for :class:`Classifier`.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        source_steps: Steps of the training before, with Adam.
        fresh: What is left out of that.
        redrawn: Modules, by their whole name, that are drawn anew after it.
        frozen: What is kept as it is in the run.
        thaw_every: Every so many steps the last of ``frozen`` is trained too. ``None``: never.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        source_steps: int = 300,
        fresh: Sequence[str] = (),
        redrawn: Sequence[str] = (),
        frozen: Sequence[str] = (),
        thaw_every: int | None = None,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.source_steps = source_steps
        self.fresh = fresh
        self.redrawn = redrawn
        self.thaw_every = thaw_every
        self._frozen = list(frozen)
        self._freeze()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer of all parameters that are trained in the run, now or later."""
        return super().make_optimizer() if self.thaw_every is None else self._make_optimizer(self.parameters())

    def setup(self, stage: str) -> None:
        """Train the model on the source."""
        learning = [p for name, p in self.model.named_parameters() if not any(part in name for part in self.fresh)]
        for parameter in learning:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(learning, lr=3e-3)
        batches = cycle(self.trainer.datamodule.source_dataloader())  # type: ignore[attr-defined]
        for inputs, labels in islice(batches, self.source_steps):
            self.model.zero_grad()
            nn.functional.cross_entropy(self.model(inputs), labels).backward()
            optimizer.step()
        self.model.zero_grad()
        for name in self.redrawn:
            self.model.get_submodule(name).reset_parameters()  # type: ignore[operator]
        self._freeze()

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Thaw the next part if it is time."""
        step = self.global_step
        if self.thaw_every and self._frozen and step and step % self.thaw_every == 0:
            self._frozen.pop()
            self._freeze()

    def _freeze(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not any(part in name for part in self._frozen))
