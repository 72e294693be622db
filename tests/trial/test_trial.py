"""Trials by experiment, on real Trainers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from grad_callbacks import Alert, ClipNorm, ClipValue, GradientGuard, Reading, ReduceLR, Rollback, SkipStep, Trial
from grad_callbacks.alerts import Kind
from tests.helpers import SGD, Regression, batches, fit, mlp

BROKEN = 40


class RaisedRate(Callback):
    """Somebody raises the learning rate in mid-run, for good."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == BROKEN:
            trainer.optimizers[0].param_groups[0]["lr"] *= self.factor


class At:
    """A rule that alerts at one step, whatever the gradients are."""

    kind: Kind = "exploding"
    active = False

    def __init__(self, step: int) -> None:
        self.step = step

    def judge(self, reading: Reading) -> Alert | None:
        if reading.step != self.step:
            return None
        return Alert(self.kind, "critical", reading.step, (), "says so", {"reference": reading.norm}, "unknown", "none")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


class Random(Regression):
    """Draws random numbers and keeps running statistics."""

    def __init__(self, make: Callable[..., Any]) -> None:
        torch.manual_seed(0)
        layers = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)]
        super().__init__(nn.Sequential(*layers), make)


def train(guard: GradientGuard, *callbacks: Any, make: Callable[..., Any] = partial(SGD, lr=0.03, momentum=0.5)) -> Any:
    torch.manual_seed(0)
    module = Regression(mlp(4, 16, 16, 2), make)
    fit(module, guard, *callbacks, data=batches(80))
    return module


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("good", "factor"), [(Rollback(), 300.0), (ReduceLR(0.02), 50.0)])
def test_what_cures_wins_over_what_does_not(good: Any, factor: float) -> None:
    guard = GradientGuard({"exploding": [ClipValue(10.0), good], "nonfinite": [good]}, trial=Trial(steps=15))
    train(guard, RaisedRate(factor))
    first = guard.trials[0]
    assert first.winner == type(good).__name__, first.scores
    assert list(first.scores)[:1] == ["none"]
    assert first.scores[first.winner] < min(first.scores["none"], first.scores.get("ClipValue", 1e9))
    made = guard.interventions[0]
    assert made.remedy == first.winner and made.detail["trial"] == first.told


@pytest.mark.parametrize("optimizer", [partial(SGD, lr=0.03, momentum=0.9), partial(torch.optim.AdamW, lr=0.01)])
@pytest.mark.parametrize("plan", [["ReduceLR", "ClipValue"], ["ClipValue"]])
def test_nothing_of_a_trial_stays_where_none_wins(optimizer: Any, plan: list[str]) -> None:
    tried, plain = (Random(optimizer) for _ in range(2))
    guard = GradientGuard({"exploding": plan}, rules=[At(50)], trial=True)
    watched = GradientGuard("observe", rules=[At(50)])
    for module, callback in ((tried, guard), (plain, watched)):
        torch.manual_seed(1)
        fit(module, callback, data=batches(80))
    [result] = guard.trials
    assert result.winner == "none" and not guard.interventions
    assert all(len(losses) == 20 for losses in result.losses.values())
    assert same(tried, plain)


@pytest.mark.parametrize(("name", "factor"), [("Rollback", 300.0), ({"ReduceLR": 0.02}, 50.0)])
def test_the_run_goes_on_as_if_the_winner_had_been_prescribed(name: Any, factor: float) -> None:
    runs = []
    for plan, trial in (([{"ClipValue": 10.0}, name], True), ([name], None)):
        guard = GradientGuard({"exploding": plan}, trial=trial)
        runs.append((guard, train(guard, RaisedRate(factor))))
    (tried, one), (direct, other) = runs
    assert [made.remedy for made in tried.interventions] == [made.remedy for made in direct.interventions]
    assert [made.step for made in tried.interventions] == [made.step for made in direct.interventions]
    assert same(one, other)
