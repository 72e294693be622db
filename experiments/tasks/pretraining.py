"""Training of language models as it is usually done: matrices decay, vectors do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from experiments.tasks.base import MakeOptimizer, MakeSchedule
from experiments.tasks.language import Language

MakeMuon = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Pretraining(Language):
    """Cross-entropy of the next token, computed in 32 bits; weight decay for embeddings and matrices only.

    Args:
        model: As for :class:`Language`.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        loss_factor: As for :class:`Language`.
        label_smoothing: Share of the target that is spread over all tokens, in training only.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        loss_factor: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(model, optimizer, schedule, loss_factor)
        self.label_smoothing = label_smoothing

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer, with a group of vectors that do not decay."""
        return self._make_optimizer(grouped(self.parameters()))  # type: ignore[arg-type]  # groups are parameters too

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        logits = self.model(batch[0]).float().flatten(0, 1)
        loss = self.loss_factor * nn.functional.cross_entropy(
            logits, batch[1].flatten(), label_smoothing=self.label_smoothing
        )
        self.log("train/loss", loss)
        return loss


class MuonPretraining(Pretraining):
    """The same with Muon for the matrices of the layers and another optimizer for all else, optimized manually.

    Args:
        model: As for :class:`Language`; its layers are in ``model.layers``.
        optimizer: Of all else, as for :class:`Task`.
        muon: Makes the optimizer of the matrices.
        schedule: As for :class:`Task`; for both.
        clip: The norm that each optimizer's gradients are clipped to; None: no clipping. The Trainer's own clipping is
            refused by Lightning where the module optimizes manually.

    References:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        muon: MakeMuon,
        schedule: MakeSchedule | None = None,
        clip: float | None = None,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.automatic_optimization = False
        self._make_muon = muon
        self.clip = clip

    def configure_optimizers(self) -> Any:
        """Make both optimizers, and a schedule for each."""
        layers: Any = self.model.layers
        matrices = [parameter for parameter in layers.parameters() if parameter.dim() == 2]
        known = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in self.parameters() if id(parameter) not in known]
        optimizers = [self._make_muon(matrices), self._make_optimizer(grouped(others))]  # type: ignore[arg-type]
        if self._make_schedule is None:
            return optimizers
        # Lightning counts a step for each optimizer.
        steps = int(self.trainer.estimated_stepping_batches) // len(optimizers)
        return optimizers, [self._make_schedule(optimizer, steps) for optimizer in optimizers]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Take a step with both, and return the batch's loss."""
        loss = super().training_step(batch, batch_idx)
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            if self.clip is not None:
                self.clip_gradients(optimizer, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")
            optimizer.step()
        schedules: list[LRScheduler] = self.lr_schedulers() or []  # type: ignore[assignment]
        for schedule in schedules:
            schedule.step()
        return loss


def grouped(parameters: Any) -> list[dict[str, Any]]:
    """Return two groups of parameters: those that decay, and vectors, which do not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() > 1]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}]
    return [*groups, {"params": vectors, "weight_decay": 0.0}] if vectors else groups
