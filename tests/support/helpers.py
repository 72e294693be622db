"""Small models, readings made by hand, and a Trainer that is quiet and quick."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard, OptimizerStep
from grad_callbacks.measurement import About, Layers, PendingReading, Reading, StepPlan, UpdateRatios
from grad_callbacks.treatment.step.learning_rate import LearningRate

SGD = torch.optim.SGD


class Prepared(GradientGuard):
    """A guard one of whose remedies is switched on by hand before the first step.

    Args:
        remedy: Its class.
        prepare: Is given the remedy and the model.
    """

    def __init__(self, remedy: type, prepare: Callable[[Any, nn.Module], object]) -> None:
        super().__init__()
        self._remedy, self._prepare = remedy, prepare

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        for engine in self._engines:
            assert engine.prescription is not None
            planned = [remedy for _, remedy in engine.prescription.planned.each() if isinstance(remedy, self._remedy)]
            assert planned, "it is in the plan"
            for remedy in planned:
                self._prepare(remedy, engine.model)


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of the given sizes with activations between them."""
    modules: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        modules += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*modules[:-1])


class Backwards(nn.Module):
    """Runs its layers in the opposite order of their registration."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 2)
        self.attention = nn.MultiheadAttention(2, 1)  # calls its out_proj as a function, unseen by hooks
        self.first = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.attention(x, x, x)[0])  # type: ignore[no-any-return]


class Regression(LightningModule):
    """Mean squared error of any model on batches of ``(inputs, targets)``."""

    def __init__(self, model: nn.Module, optimizer: Callable[[Any], torch.optim.Optimizer] | None = None) -> None:
        super().__init__()
        self.model = model
        self.make_optimizer = optimizer or partial(SGD, lr=0.01)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        inputs, targets = batch
        return nn.functional.mse_loss(self.model(inputs), targets)

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


class Poisoned(Regression):
    """Multiplies the loss of some steps with a factor: 1e4 for a spike, NaN for a non-finite gradient."""

    def __init__(self, *args: Any, factors: dict[int, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.factors = factors

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        loss = super().training_step(batch, batch_idx)
        return loss * self.factors.get(self.global_step, 1.0)


def batches(count: int = 32, size: int = 8, features: int = 4, targets: int = 2) -> DataLoader[Any]:
    """``count`` batches of a learnable regression, always the same, in the same order."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count * size, features, generator=generator)
    mixing = torch.randn(features, targets, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs @ mixing), batch_size=size)


def trainer(*callbacks: Any, **options: Any) -> Trainer:
    """A quiet Trainer of one epoch on the CPU; ``options`` override."""
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | options))


def fit(module: LightningModule, *callbacks: Any, data: Any = None, **options: Any) -> Trainer:
    """Train ``module`` and return the Trainer."""
    run = trainer(*callbacks, **options)
    run.fit(module, batches() if data is None else data)
    return run


def hooks(model: nn.Module) -> int:
    """Hooks in front of and behind the forward passes of a model's modules."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def layers_of(model: nn.Module, **options: Any) -> Layers:
    """The layers of a model under SGD."""
    return Layers.of(SGD(model.parameters(), lr=0.1), model, **options)


@lru_cache
def square_layers(count: int) -> Layers:
    """Square linear layers without biases; made once, as they are only looked at."""
    return layers_of(nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(count))))


def read(layers: Layers, step: int = 0, loss_scale: float = 1.0, **about: Any) -> Reading | None:
    """Measure the gradients of ``layers`` as an engine does."""
    plan = StepPlan((0.1,), None, (0.0,))
    incoming = PendingReading.take(UpdateRatios(layers), plan, About(step, **about), loss_scale)
    return None if incoming is None else incoming.reading


def pending(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, on_device: bool = False, **options: Any
) -> OptimizerStep:
    """The step that ``optimizer`` is about to take with the gradients of ``model``."""
    optimizer = optimizer or SGD(model.parameters(), lr=0.1)
    plan = StepPlan.of(optimizer, [0.1])
    incoming = PendingReading.take(
        UpdateRatios(Layers.of(optimizer, model)), plan, About(0), options.get("loss_scale", 1.0)
    )
    assert incoming is not None
    return OptimizerStep(incoming, optimizer, LearningRate(optimizer), on_device=on_device, **options)


def reading(
    norms: Sequence[float] = (1.0, 1.0, 1.0),
    step: int = 0,
    displacement: float = 0.0,
    motion: Sequence[float] | None = None,
    weight_norms: Sequence[float] | None = None,
    model: nn.Module | None = None,
    **options: Any,
) -> Reading:
    """A reading of ``model``, or else of square linear layers without biases: one norm for each parameter."""
    layers = square_layers(len(norms)) if model is None else layers_of(model)
    values = np.array(norms, dtype=np.float64)
    return Reading(
        step=step,
        layers=layers,
        norms=values,
        present=np.ones(len(values), dtype=np.bool_),
        displacement=displacement,
        motion=np.full(len(layers.names), math.inf) if motion is None else np.array(motion),
        weight_norms=np.ones(len(layers.names)) if weight_norms is None else np.array(weight_norms),
        **options,
    )
