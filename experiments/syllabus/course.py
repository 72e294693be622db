"""What a run of the syllabus is measured by: the error's profile at its start, its loss, the weights at either end."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from experiments.syllabus.profile import Profile, predicted

LAST = 10  # steps whose mean loss is the final one
EVERY = 10  # steps between two losses that are kept for the course's picture


class Course(Callback):
    """Measures a run and changes nothing.

    Attributes:
        profile: Of the net before the first step.
        theory: The factor per layer by mean-field theory; NaN where there is none.
        losses: Of every step.
        norms: Of the whole gradient at every step, before Lightning clips it.
    """

    def __init__(self) -> None:
        self.profile: Profile | None = None
        self.theory = math.nan
        self.losses: list[float] = []
        self.norms: list[float] = []
        self._start: list[Tensor] = []
        self._end: list[Tensor] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the profile on a batch, and keep the weights."""
        model: Any = pl_module.model
        with torch.random.fork_rng():  # the run's own batches stay what they are without this measurement
            inputs, targets = next(iter(trainer.datamodule.train_dataloader()))  # type: ignore[attr-defined]
            self.profile = Profile(model, inputs, targets)
        self.theory = predicted(model, inputs)
        self._start = _weights(model)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Keep the norm of the gradient."""
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the loss."""
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights."""
        model: Any = pl_module.model
        self._end = _weights(model)

    def moved(self) -> list[float]:
        """Return how far each weight has moved from the first step to the last, relative to its norm at the start."""
        pairs = zip(self._start, self._end, strict=True)
        return [float((end - start).norm() / start.norm().clamp(min=1e-30)) for start, end in pairs]

    def measured(self) -> dict[str, Any]:
        """Return all as plain numbers."""
        assert self.profile is not None
        moved = self.moved()
        finite, norms = ([x for x in numbers if math.isfinite(x)] for numbers in (self.losses, self.norms))
        lost = next((step for step, loss in enumerate(self.losses) if not math.isfinite(loss)), None)
        return {
            "errors": self.profile.errors,
            "decay": self.profile.decay,
            "theory": self.theory,
            "error_ratio": self.profile.ratio,
            "weight_ratio": self.profile.weight_ratio,
            "loss_first": self.losses[0],
            "loss_highest": max(finite, default=math.nan),
            "loss_last": fmean(self.losses[-LAST:]),
            "losses": self.losses[::EVERY],
            "nonfinite_step": lost,
            "norm_first": self.norms[0],
            "norm_highest": max(norms, default=math.nan),
            "moved_first": moved[0],
            "moved_last": moved[-1],
        }


def _weights(model: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters() if parameter.ndim > 1]
