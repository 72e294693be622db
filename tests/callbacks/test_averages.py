"""Averages of the weights do not keep what a rollback has thrown away, wherever they are held."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from grad_callbacks import Engine, GradientGuard
from tests.support.helpers import Regression, batches, fit, mlp

DECAY = 0.9


class OneHugeStep(Regression):
    """Takes one step at a learning rate of 1e30: the weights stay finite, and are of no use."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = 1e30 if self.global_step == 150 else 0.01
        return super().training_step(batch, batch_idx)


class Shadow:
    """An average as libraries keep it: a list of tensors in an object of their own."""

    def __init__(self, model: nn.Module) -> None:
        self.shadow_params = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for mine, new in zip(self.shadow_params, model.parameters(), strict=True):
            mine.lerp_(new, 1 - DECAY)

    def weights(self) -> list[Tensor]:
        return self.shadow_params


class Named(Shadow):
    """The same in a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        self.shadow = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            self.shadow[name].lerp_(parameter, 1 - DECAY)

    def weights(self) -> list[Tensor]:
        return list(self.shadow.values())


class Backwards(Named):
    """The same in another order: it is restored, yet it cannot begin again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.shadow = dict(reversed(self.shadow.items()))


class Vector(Shadow):
    """The same in one vector, replaced at each update."""

    def __init__(self, model: nn.Module) -> None:
        self.vector = nn.utils.parameters_to_vector(model.parameters()).detach()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.vector.lerp_(nn.utils.parameters_to_vector(model.parameters()), 1 - DECAY)

    def weights(self) -> list[Tensor]:
        return [self.vector]


class Copied(Shadow):
    """A deep copy."""

    def __init__(self, model: nn.Module) -> None:
        self.copied = copy.deepcopy(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for mine, new in zip(self.copied.parameters(), model.parameters(), strict=True):
            mine.data.lerp_(new.data, 1 - DECAY)

    def weights(self) -> list[Tensor]:
        return list(self.copied.parameters())


class Swa(Shadow):
    """Of torch's own class."""

    def __init__(self, model: nn.Module) -> None:
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))

    def update(self, model: nn.Module) -> None:
        self.averaged.update_parameters(model)

    def weights(self) -> list[Tensor]:
        return list(self.averaged.parameters())


KINDS = [Shadow, Named, Backwards, Vector, Copied, Swa]


class Held(Callback):
    """Keeps an average in a callback."""

    def __init__(self, make: Callable[[nn.Module], Shadow]) -> None:
        self._make = make

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.average = self._make(pl_module.model)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.average.update(pl_module.model)


class Holding(OneHugeStep):
    """Keeps an average itself: as a part if it is a module, else in an attribute."""

    def __init__(self, make: Callable[[nn.Module], Shadow], *args: Any) -> None:
        super().__init__(*args)
        self.average = make(self.model)
        for value in vars(self.average).values():
            if isinstance(value, nn.Module):
                self.part = value

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.model.parameters())

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update(self.model)


def run(module: OneHugeStep, *callbacks: Any, **options: Any) -> GradientGuard:
    guard = next(callback for callback in callbacks if isinstance(callback, GradientGuard))
    fit(module, *callbacks, data=batches(40), **({"max_steps": 300, "max_epochs": -1} | options))
    return guard


def module() -> OneHugeStep:
    torch.manual_seed(0)
    return OneHugeStep(mlp(4, 32, 2), torch.optim.Adam)


def loss(model: nn.Module) -> float:
    inputs, targets = batches(40).dataset.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(model(inputs), targets))


def largest(average: Shadow) -> float:
    return float(torch.stack([tensor.abs().max() for tensor in average.weights()]).max())  # NaN if one is


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("order", [None, 1, -1])
def test_that_of_lightning_is_restored_in_any_order_of_callbacks(depth: int, order: int | None) -> None:
    torch.manual_seed(0)
    module = OneHugeStep(mlp(4, *[32] * (depth - 1), 2), torch.optim.Adam)
    guard = GradientGuard()
    run(module, *([guard] if order is None else [guard, EMAWeightAveraging(decay=DECAY)][::order]))
    assert loss(module.model) < 0.1
    assert guard.outcome == "repaired"
    [made] = [made for made in guard.interventions if made.remedy == "Rollback"]
    assert made.detail.get("averages_restored") == (None if order is None else 1)


@pytest.mark.parametrize("start", [1, 3])
def test_stochastic_weight_averaging_is_restored(start: int) -> None:
    made = module()
    guard = run(made, GradientGuard(), StochasticWeightAveraging(0.01, start), max_steps=-1, max_epochs=8)
    assert loss(made.model) < 0.2
    assert guard.outcome == "repaired"


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_a_callback_holds_is_restored(kind: type[Shadow]) -> None:
    held = Held(kind)
    guard = run(module(), held, GradientGuard())
    assert [made.remedy for made in guard.interventions] == ["Rollback"]
    assert guard.interventions[0].detail["averages_restored"] == 1
    assert largest(held.average) < 10


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_the_module_holds_is_restored(kind: type[Shadow]) -> None:
    torch.manual_seed(0)
    module = Holding(kind, mlp(4, 32, 2), torch.optim.Adam)
    guard = run(module, GradientGuard())
    assert guard.interventions[0].detail["averages_restored"] == 1
    assert largest(module.average) < 10


def test_a_frozen_network_of_the_same_shapes_is_neither_copied_nor_written_to() -> None:
    class Frozen(Copied):
        def update(self, model: nn.Module) -> None:
            """Stay."""

    torch.manual_seed(0)
    module = Holding(Frozen, mlp(4, 32, 2), torch.optim.Adam)
    nn.init.ones_(module.average.weights()[0])
    wanted = [weight.clone() for weight in module.average.weights()]
    guard = run(module, GradientGuard())
    assert guard.interventions[0].remedy == "Rollback"
    assert not {name for name in guard.interventions[0].detail if name.startswith("averages")}
    torch.testing.assert_close(module.average.weights(), wanted, rtol=0, atol=0)


def back_to_the_start(kind: type[Shadow]) -> tuple[Engine, Shadow]:
    """A plain loop whose weights are lost at step 12, before any average is seen to move."""
    torch.manual_seed(0)
    model = mlp(4, 32, 2)
    optimizer, average = torch.optim.SGD(model.parameters(), lr=0.05), kind(model)
    engine = Engine(model, optimizer, prescription={"nonfinite": ["Rollback"]}, averages=[average])
    for step, (inputs, targets) in enumerate(batches(20)):
        if step == 12:
            nn.init.constant_(model[0].weight, torch.nan)
            average.update(model)
        optimizer.zero_grad()
        error = torch.nn.functional.mse_loss(model(inputs), targets)
        error.backward()
        engine.before_step(loss=error)
        optimizer.step()
        average.update(model)
    engine.close()
    return engine, average


@pytest.mark.parametrize("kind", [Shadow, Named, Vector, Copied, Swa])
def test_one_that_was_not_kept_begins_again(kind: type[Shadow]) -> None:
    engine, average = back_to_the_start(kind)
    assert engine.record.interventions[0].detail["averages_restarted"] == 1
    assert largest(average) < 10


def test_one_that_cannot_be_reset_is_named_and_the_run_is_not_repaired(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    engine, average = back_to_the_start(Backwards)
    assert not largest(average) < 10
    assert engine.record.interventions[0].detail["averages_lost"] == "Backwards.shadow"
    assert engine.record.outcome == "unrepaired"
    assert "averages_lost Backwards.shadow" in engine.record.report()
