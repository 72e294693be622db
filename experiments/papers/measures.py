"""What some papers measure of a run."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from experiments.syllabus.runs import Measure

SPIKE = 10.0  # times the least loss of the steps before, from which on up a loss is a spike
BEFORE = 20  # steps that it is compared with
CALM = 20  # steps without a spike after which the next one is another
ITERATIONS = 40  # of the power method: the largest eigenvalue to some percent


class Spikes(Measure):
    """Counts how often the loss rises to ten times its least value of the 20 steps before."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the loss."""
        self.losses.append(float(outputs["loss"]))

    def measured(self) -> dict[str, Any]:
        """Return the number of spikes, those that are one behind the other counted once."""
        return {"spikes": spikes(self.losses)}


def spikes(losses: list[float]) -> int:
    """Count the spikes in a course of the loss."""
    found, last = 0, -CALM - 1
    for step in range(BEFORE, len(losses)):
        if losses[step] > SPIKE * min(losses[step - BEFORE : step]):
            found += step - last > CALM
            last = step
    return found


class Sharpness(Measure):
    """The largest eigenvalue of the loss's Hessian at the end, over a batch, and how often the loss has risen."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sharpness = float("nan")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the loss."""
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the Hessian's largest eigenvalue by the power method."""
        task: Any = pl_module
        inputs, labels = next(iter(trainer.datamodule.train_dataloader()))  # type: ignore[attr-defined]
        parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        with torch.enable_grad():
            loss = task.loss_factor * task.criterion(task.model(inputs), labels)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        self.sharpness = _largest_eigenvalue(gradients, parameters)

    def measured(self) -> dict[str, Any]:
        """Return sharpness and the share of steps in which the loss has risen."""
        rises = sum(after > before for before, after in zip(self.losses, self.losses[1:], strict=False))
        return {"sharpness": self.sharpness, "rises": rises / max(1, len(self.losses) - 1)}


def _largest_eigenvalue(gradients: Any, parameters: list[Any]) -> float:
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]
    value = 0.0
    for _ in range(ITERATIONS):
        size = torch.sqrt(sum((part.square().sum() for part in vector), torch.zeros(())))
        vector = [part / size for part in vector]
        product = torch.autograd.grad(gradients, parameters, grad_outputs=vector, retain_graph=True)
        value = float(sum((p * v).sum() for p, v in zip(product, vector, strict=True)))
        vector = list(product)
    return value
