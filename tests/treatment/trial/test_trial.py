"""Trials by experiment, on real Trainers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins import MixedPrecision
from omegaconf import OmegaConf
from torch import Tensor, nn

from grad_callbacks import Batch, ClipNorm, ClipValue, Engine, GradientGuard, ReduceLR, Rollback, Trial
from grad_callbacks.measurement.replay import ReplayThresholds
from grad_callbacks.treatment.trial.batch_buffer import BatchBuffer
from grad_callbacks.treatment.trial.contest import winner_of
from grad_callbacks.treatment.trial.optimizer_copy import can_be_copied, copy_of
from tests.support.helpers import SGD, Regression, batches, fit, mlp, trainer
from tests.support.trial_faults import Alarm, Average, RaisedRate, UndefinedTerm


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


class Unrepeatable(Regression):
    """Gives each batch one loss only."""

    seen: int = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        if batch_idx < type(self).seen:
            raise RuntimeError("this batch was seen already")
        type(self).seen = batch_idx + 1
        return super().training_step(batch, batch_idx)


def train(guard: GradientGuard, *callbacks: Any) -> Regression:
    torch.manual_seed(0)
    module = Regression(mlp(4, 16, 16, 2), partial(SGD, lr=0.03, momentum=0.5))
    fit(module, guard, *callbacks, data=batches(80))
    return module


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.numerics
@pytest.mark.parametrize(("good", "factor"), [(Rollback(), 300.0), (ReduceLR(0.02), 50.0)])
def test_what_cures_wins_over_what_does_not(good: Any, factor: float) -> None:
    trial = Trial(steps=15, from_snapshot=False)
    guard = GradientGuard({"exploding": [ClipValue(10.0), good], "nonfinite": [good]}, trial=trial)
    train(guard, RaisedRate(factor))
    first = guard.trials[0]
    assert first.winner == type(good).__name__, first.scores
    assert list(first.scores)[:1] == ["none"]
    assert first.scores[first.winner] < min(first.scores["none"], first.scores["ClipValue"])
    made = guard.interventions[0]
    assert made.remedy == first.winner
    assert first.told in made.detail["trial"]


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


def test_what_works_in_the_backward_pass_is_tried_too() -> None:
    torch.manual_seed(0)
    module = UndefinedTerm(mlp(4, 16, 2), partial(SGD, lr=0.05))
    guard = GradientGuard({"nonfinite": ["SkipStep", "MaskUndefined"]}, trial=True)
    fit(module, guard, data=batches(80))
    [result] = guard.trials
    assert result.winner == "MaskUndefined"
    assert result.scores["MaskUndefined"] < 0.9 * result.scores["SkipStep"]
    assert result.scores["none"] == float("inf")
    assert guard.interventions[0].remedy == "MaskUndefined"


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
    assert guard.outcome == "repaired"
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())


@pytest.mark.parametrize(("name", "factor"), [("Rollback", 300.0), ({"ReduceLR": 0.02}, 50.0)])
def test_the_run_goes_on_as_if_the_winner_had_been_prescribed(name: Any, factor: float) -> None:
    runs = []
    now = Trial(from_snapshot=False)
    for plan, trial in (([{"ClipValue": 10.0}, name], now), ([name], None)):
        guard = GradientGuard({"exploding": plan}, trial=trial)
        runs.append((guard, train(guard, RaisedRate(factor))))
    (tried, one), (direct, other) = runs
    assert [(made.step, made.remedy) for made in tried.interventions] == [
        (made.step, made.remedy) for made in direct.interventions
    ]
    assert same(one, other)


@pytest.mark.numerics
def test_a_remedy_that_comes_too_late_may_win_from_the_snapshot() -> None:
    plan = {"exploding": [ClipValue(10.0), ReduceLR(0.003)], "nonfinite": [Rollback()]}
    guard = GradientGuard(plan, trial=Trial(steps=15, margin=0.3))  # the rollback by chance is a little better still
    module = train(guard, RaisedRate(300.0))
    first = guard.trials[0]
    assert first.winner == "ReduceLR from the snapshot", first.scores
    assert first.scores[first.winner] < 0.01 * min(first.scores["ReduceLR"], first.scores["ClipValue"])
    made = guard.interventions[0]
    assert (made.remedy, made.detail["to_step"]) == ("ReduceLR", 24)
    assert guard.outcome == "repaired"
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())


def test_a_random_remedy_runs_beside_the_prescribed_ones() -> None:
    plan = {"exploding": ["ClipNorm"], "vanishing": ["Rollback"], "nonfinite": ["SkipStep"]}
    rules = [Alarm(20, 40, 60), "NonFinite", "Vanishing"]
    guard = GradientGuard(plan, trial={"steps": 3, "most": 2}, rules=rules)
    train(guard)
    assert len(guard.trials) == 2, "most"
    for result in guard.trials:
        *prescribed, random = result.scores
        assert prescribed == ["none", "ClipNorm", "ClipNorm from the snapshot"]
        assert random in ("random: Rollback", "random: SkipStep")
    assert [made.remedy for made in guard.interventions] == ["ClipNorm"], "as prescribed, when no trial is left"


def test_its_results_resume(tmp_path: Path) -> None:
    guard = GradientGuard({"exploding": ["ClipNorm"]}, trial=Trial(steps=3), rules=[Alarm(20)])
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=30)
    fit(Regression(mlp(4, 8, 2)), guard, saver, enable_checkpointing=True, max_steps=30)
    [checkpoint] = tmp_path.glob("*.ckpt")
    resumed = GradientGuard({"exploding": ["ClipNorm"]}, trial=Trial(steps=3), rules=[Alarm(20)])
    trainer(resumed).fit(Regression(mlp(4, 8, 2)), batches(), ckpt_path=checkpoint, weights_only=True)
    assert resumed.trials == guard.trials
    assert len(guard.trials) == 1


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


@pytest.mark.parametrize(("step", "kind"), [(2, Regression), (20, Unrepeatable)])
def test_the_prescription_decides_where_no_trial_can_be_held(step: int, kind: type[Regression]) -> None:
    guard = GradientGuard({"exploding": [ClipNorm(1.0)]}, trial=True, rules=[Alarm(step)], diagnose=False)
    Unrepeatable.seen = 0
    fit(kind(mlp(4, 8, 2)), guard)
    assert [made.remedy for made in guard.interventions] == ["ClipNorm"]
    assert all(not result.winner for result in guard.trials)


@pytest.mark.parametrize(
    ("spec", "message"),
    [({"steps": 0}, "steps"), ({"margin": 1.0}, "margin"), ({"batches": 3}, "batches"), ({"rounds": 3}, "rounds")],
)
def test_a_wrong_argument_is_named(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientGuard(trial=spec)


def test_plain_values_say_the_same() -> None:
    assert GradientGuard(trial={"steps": 5}).trial == Trial(steps=5)
    assert GradientGuard(trial=True).trial == Trial()
    assert GradientGuard(trial=False).trial is GradientGuard().trial is None


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ({"none": 1.0, "a": 0.97}, "none"),
        ({"none": 1.0, "a": 0.5, "b": 0.48}, "a"),
        ({"none": float("inf"), "a": 2.0}, "a"),
        ({"none": -1.0, "a": -2.0}, "a"),
        ({"none": float("inf")}, ""),
    ],
)
def test_what_is_about_as_good_goes_to_the_least_invasive(scores: dict[str, float], winner: str) -> None:
    assert winner_of(scores, 0.05) == winner
    assert winner_of(scores, 0.05, bearable=1.0) == ("none" if scores["none"] <= 1.0 else winner)


def test_the_ring_keeps_to_its_bounds() -> None:
    ring = BatchBuffer(most=4, budget=100)
    for index in range(6):
        ring.add(Batch(torch.zeros(5), index, lambda: torch.zeros(())))
    ring.add(Batch(torch.zeros(5), 6))  # cannot be replayed
    assert [batch.index for batch in ring.latest(3)] == [3, 4, 5]
    assert (len(ring), ring.nbytes) == (4, 80)
    ring.add(Batch(torch.zeros(30), 7, lambda: torch.zeros(())))
    assert len(ring) == 0, "one batch beyond the budget"


def test_hydra_and_lightnings_command_line_can_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmegaConf.create({"_target_": "grad_callbacks.GradientGuard", "trial": {"steps": 7}})
    assert instantiate(config).trial == Trial(steps=7)
    monkeypatch.chdir(tmp_path)
    for spec, expected in (({"steps": 7, "most": 1}, Trial(steps=7, most=1)), (True, Trial()), (None, None)):
        guard = {"class_path": "grad_callbacks.GradientGuard", "init_args": {"trial": spec}}
        options = {"logger": False, "accelerator": "cpu", "callbacks": [guard]}
        cli = LightningCLI(BoringModel, run=False, args={"trainer": options})
        [made] = [callback for callback in cli.trainer.callbacks if isinstance(callback, GradientGuard)]
        assert made.trial == expected
