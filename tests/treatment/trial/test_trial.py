"""Trials by experiment, on real Trainers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from grad_callbacks import Batch, ClipNorm, ClipValue, GradientGuard, ReduceLR, Rollback, Trial
from grad_callbacks.treatment.trial.batch_buffer import BatchBuffer
from grad_callbacks.treatment.trial.contest import winner_of
from tests.support.helpers import SGD, Regression, batches, fit, mlp, trainer
from tests.support.trial_faults import Alarm, RaisedRate, UndefinedTerm
from tests.support.trial_runs import same, train


class Unrepeatable(Regression):
    """Gives each batch one loss only."""

    seen: int = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        if batch_idx < type(self).seen:
            raise RuntimeError("this batch was seen already")
        type(self).seen = batch_idx + 1
        return super().training_step(batch, batch_idx)


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
    assert guard.outcome == "partly repaired", "the loss has some way to go"
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


@pytest.mark.parametrize(("step", "kind"), [(2, Regression), (20, Unrepeatable)])
def test_the_prescription_decides_where_no_trial_can_be_held(step: int, kind: type[Regression]) -> None:
    guard = GradientGuard({"exploding": [ClipNorm(1.0)]}, trial=True, rules=[Alarm(step)], diagnose=False)
    Unrepeatable.seen = 0
    fit(kind(mlp(4, 8, 2)), guard)
    assert [made.remedy for made in guard.interventions] == ["ClipNorm"]
    assert all(not result.winner for result in guard.trials)


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
