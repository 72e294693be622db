"""A training step is run again up to the step of one optimizer, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from grad_callbacks.callbacks._replay import StepReplay
from grad_callbacks.measurement.replay import undisturbed
from tests.support.helpers import SGD, Regression, fit, mlp


class Replaying(Callback):
    """Runs each step again, and compares its loss with that of the step."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.again: list[float] = []
        self._losses: list[float] = []
        self._steps: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._batch = batch, batch_idx
        self._steps = []

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        self._losses.append(float(loss.detach()))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        before = sum(one is optimizer for one in self._steps)
        self._steps.append(optimizer)
        batch = StepReplay(trainer, pl_module).batch(*self._batch, optimizer, before)
        assert batch.replay is not None
        with undisturbed(pl_module):
            self.again.append(float(batch.replay().detach()))
        self.told.append(sum(self._losses))
        self._losses = []


class Manual(LightningModule):
    """Two networks, two optimizers and a scheduler; a step as its subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.first, self.second = mlp(4, 8, 2), mlp(2, 8, 2)
        self.batches = 0
        self.seen: list[float] = []

    def configure_optimizers(self) -> Any:
        optimizers = [SGD(part.parameters(), lr=0.1, momentum=0.9) for part in (self.first, self.second)]
        return optimizers, [torch.optim.lr_scheduler.ExponentialLR(optimizers[0], 0.9)]

    def loss(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self.second(self.first(batch[0])), batch[1])

    def take(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class InTurns(Manual):
    """One optimizer after the other, the scheduler between them, something logged and counted."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        first, second = self.optimizers()
        self.batches += 1
        self.seen.append(float(batch[0].sum()))
        self.log("batches", float(self.batches))
        self.toggle_optimizer(first)
        self.take(first, self.loss(batch))
        self.untoggle_optimizer(first)
        self.lr_schedulers().step()
        self.take(second, self.second(batch[1]).square().mean())


class ManySteps(Manual):
    """Three steps of one optimizer in a batch, of two backward passes each, each with a closure."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        first, _ = self.optimizers()
        for factor in (1.0, 2.0, 3.0):

            def closure(factor: float = factor) -> None:
                first.zero_grad()
                self.manual_backward(self.first(batch[0]).square().mean() + 0 * factor)
                self.manual_backward(self.first(batch[0]).mean() * factor)

            with first.toggle_model():
                first.step(closure)


def weights_after(module: LightningModule, *callbacks: Callback) -> list[Tensor]:
    fit(module, *callbacks)
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_each_optimizer_in_turn_gets_the_loss_of_its_own_step() -> None:
    replaying = Replaying()
    weights_after(InTurns(), replaying)
    assert len(replaying.told) == 64
    assert replaying.told[1::2] == replaying.again[1::2], "nothing of its loss depends on the step before"
    assert replaying.told[0::2] == replaying.again[0::2]


def test_each_of_several_steps_in_a_batch_gets_its_own_loss() -> None:
    replaying = Replaying()
    weights_after(ManySteps(), replaying)
    assert len(replaying.told) == 96
    # The steps before are not taken, so the weights are already those after them.
    assert replaying.again == pytest.approx(replaying.told, rel=1e-6)


@pytest.mark.parametrize("make", [InTurns, ManySteps])
def test_nothing_of_a_replay_stays(make: Callable[[], Manual]) -> None:
    plain, replayed = make(), make()
    before, after = weights_after(plain), weights_after(replayed, Replaying())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (plain.batches, plain.seen) == (replayed.batches, replayed.seen)


def test_a_step_that_is_not_reached_is_an_error() -> None:
    class Never(Manual):
        """Steps in the first batch only."""

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.batches += 1
            if self.batches == 1:  # and two when it is run again
                self.take(self.optimizers()[0], self.loss(batch))

    with pytest.raises(ValueError, match="did not step this optimizer"):
        fit(Never(), Replaying())


def test_in_automatic_optimization_the_loss_is_what_training_step_returns() -> None:
    replaying = Replaying()
    weights_after(Regression(mlp(4, 8, 2), lambda parameters: SGD(parameters, lr=0.1)), replaying)
    assert replaying.told == replaying.again
