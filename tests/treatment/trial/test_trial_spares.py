"""What a trial leaves as it was, and where for that reason none is held."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from grad_callbacks import Batch, Engine, GradientGuard, ReduceLR, Trial
from grad_callbacks.measurement.replay import ReplayThresholds
from grad_callbacks.treatment.trial.optimizer_copy import can_be_copied, copy_of
from tests.support.helpers import SGD, Regression, batches, fit, mlp
from tests.support.trial_faults import Alarm, Average, RaisedRate
from tests.support.trial_runs import same, train


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU count as a device that runs behind the host."""
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: True)


class Random(Regression):
    """Draws random numbers, keeps running statistics, logs, and has a schedule that refuses a step too many."""

    def __init__(self, make: Callable[..., Any]) -> None:
        torch.manual_seed(0)
        layers = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)]
        super().__init__(nn.Sequential(*layers), make)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.03, total_steps=80)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.parametrize("optimizer", [partial(SGD, momentum=0.9), partial(torch.optim.AdamW, fused=True)])
@pytest.mark.parametrize("plan", [["ReduceLR", "ClipValue"], ["Rollback"]])
@pytest.mark.parametrize("precision", ["32-true", pytest.param("16-mixed", marks=pytest.mark.slow)])
def test_nothing_of_a_trial_stays_where_none_wins(optimizer: Any, plan: list[str], precision: str) -> None:
    tried, plain = (Random(partial(optimizer, lr=0.03)) for _ in range(2))
    guard = GradientGuard({"exploding": plan}, rules=[Alarm(50)], trial=True)
    watched = GradientGuard("observe", rules=[Alarm(50)])
    for module, callback in ((tried, guard), (plain, watched)):
        torch.manual_seed(1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        plugins = [MixedPrecision("16-mixed", "cpu", scaler)] if precision == "16-mixed" else []
        fit(module, callback, data=batches(80), plugins=plugins)
    [result] = guard.trials
    assert result.winner == "none"
    assert not guard.interventions
    assert all(len(losses) == 20 for losses in result.losses.values())
    assert same(tried, plain)


def test_what_an_optimizer_keeps_in_attributes_is_spared_too() -> None:
    guard = GradientGuard({"exploding": ["ReduceLR"]}, rules=[Alarm(50)], trial=True)
    runs = []
    for callback in (guard, GradientGuard("observe", rules=[Alarm(50)])):
        torch.manual_seed(0)
        module = Regression(mlp(4, 8, 2), partial(Average, lr=0.01))
        runs.append((module, fit(module, callback, data=batches(80)).optimizers[0]))
    (module, tried), (_, plain) = runs
    assert [result.winner for result in guard.trials] == ["none"]
    assert isinstance(tried, Average)
    assert isinstance(plain, Average)
    assert all(torch.equal(one, other) for one, other in zip(tried.ema, plain.ema, strict=True))
    assert tried.count == plain.count == [80]
    twin = copy_of(tried, [0.02])
    assert isinstance(twin, Average)
    assert all(one is other for one, other in zip(twin.weights, module.parameters(), strict=True))
    assert twin.param_groups[0]["lr"] == 0.02


@pytest.mark.parametrize("kept", [lambda inner: inner, lambda inner: [inner], lambda inner: {"weights": inner}])
def test_an_optimizer_that_steps_another_has_no_twin(kept: Callable[[torch.optim.Optimizer], Any]) -> None:
    optimizer = SGD(mlp(4, 2).parameters(), lr=0.1)
    assert can_be_copied(optimizer)
    optimizer.others = kept(SGD(mlp(4, 2).parameters(), lr=0.1))  # type: ignore[attr-defined]
    assert not can_be_copied(optimizer)


def test_an_optimizer_that_cannot_be_copied_gets_no_trial(caplog: pytest.LogCaptureFixture) -> None:
    class Locked(SGD):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.lock = threading.Lock()

    guard = GradientGuard({"exploding": ["ClipNorm"]}, rules=[Alarm(50)], trial=True)
    fit(Regression(mlp(4, 8, 2), partial(Locked, lr=0.01)), guard, data=batches(80))
    assert [made.remedy for made in guard.interventions] == ["ClipNorm"]
    assert not guard.trials
    assert "no trial could be held" in caplog.text


def test_weights_too_large_to_be_copied_for_a_diagnosis_are_spared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grad_callbacks.measurement.replay.LIMITS", ReplayThresholds(weights=0))
    for plan in (["ReduceLR"], ["Rollback"]):
        guard = GradientGuard({"exploding": plan}, rules=[Alarm(50)], trial=True)
        tried, plain = train(guard), train(GradientGuard("observe", rules=[Alarm(50)]))
        assert [result.winner for result in guard.trials] == ["none"]
        assert same(tried, plain)
        assert "step 50, none won" in guard.report()


def test_a_trial_that_fails_leaves_it_to_the_prescription(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("grad_callbacks.treatment.trial.sandbox.copy_of", refuse)
    guard = GradientGuard({"exploding": ["ClipNorm"]}, rules=[Alarm(50)], trial=True)
    plain = GradientGuard({"exploding": ["ClipNorm"]}, rules=[Alarm(50)])
    assert same(train(guard), train(plain))
    assert [made.remedy for made in guard.interventions] == ["ClipNorm"]
    assert "no trial could be held" in caplog.text


@pytest.mark.usefixtures("accelerator")
def test_on_an_accelerator_it_is_held_a_step_later() -> None:
    tried, plain = (Random(partial(torch.optim.AdamW, lr=0.01, fused=True)) for _ in range(2))
    guard = GradientGuard({"exploding": ["Rollback", "ReduceLR"]}, rules=[Alarm(50)], trial=True)
    for module, callback in ((tried, guard), (plain, GradientGuard("observe", rules=[Alarm(50)]))):
        torch.manual_seed(1)
        fit(module, callback, data=batches(80))
    assert [result.winner for result in guard.trials] == ["none"]
    assert same(tried, plain)
    guard = GradientGuard({"exploding": [ReduceLR(0.003)], "nonfinite": ["Rollback"]}, trial=Trial(margin=0.3))
    module = train(guard, RaisedRate(300.0))
    assert guard.interventions[0].detail["to_step"] == 24, guard.trials
    assert guard.outcome in ("repaired", "partly repaired")
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())


@pytest.mark.usefixtures("accelerator")
def test_a_state_saved_between_going_back_and_the_next_step_goes_on_as_the_run_would_have() -> None:
    plan = {"exploding": [ReduceLR(0.003)], "nonfinite": ["Rollback"]}

    def make() -> Engine:
        torch.manual_seed(0)
        model = mlp(4, 16, 1)
        return Engine(model, SGD(model.parameters(), lr=0.03, momentum=0.5), prescription=plan, trial=Trial(margin=0.3))

    def go_on(engine: Engine, steps: range) -> None:
        for step in steps:
            inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(step))

            def replay(inputs: Tensor = inputs) -> Tensor:
                return nn.functional.mse_loss(engine.model(inputs), inputs.sum(1, keepdim=True))

            if step == 40:
                engine.optimizer.param_groups[0]["lr"] *= 300
            loss = replay()
            engine.optimizer.zero_grad()
            loss.backward()
            engine.before_step(loss=loss, batch=Batch(inputs, step, replay))
            engine.optimizer.step()

    whole, resumed = make(), make()
    go_on(whole, range(42))
    for one, other in zip(_parts(whole), _parts(resumed), strict=True):
        other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert [result.winner for result in resumed.record.trials] == ["ReduceLR from the snapshot"]
    for engine in (whole, resumed):
        go_on(engine, range(42, 60))
    assert same(whole.model, resumed.model)


def _parts(engine: Engine) -> list[Any]:
    """What is saved, in the order of loading; the engine judges its last step before."""
    engine.settle()
    return [engine.model, engine.optimizer, engine.record, engine]
