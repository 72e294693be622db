"""Rollback in an engine of its own: where it goes back to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection

import pytest
import torch
from torch import nn

from grad_callbacks import Engine, Vanishing
from tests.support.helpers import SGD, mlp
from tests.support.told_once import Once


def run(
    plan: dict[str, list[object]], poison: Collection[int], steps: int = 120, lr: float = 0.05
) -> tuple[Engine, list[float]]:
    """A plain loop whose batches are not finite at the steps of ``poison``; also the rate of each step."""
    torch.manual_seed(0)
    model = mlp(4, 16, 16, 2)
    engine = Engine(model, SGD(model.parameters(), lr=lr, momentum=0.9), prescription=plan)
    rates: list[float] = []
    engine.optimizer.register_step_pre_hook(lambda *_: rates.append(engine.learning_rate.effective()[0]))
    for step in range(steps):
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2]) * (math.nan if step in poison else 1.0)
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
    engine.close()
    return engine, rates


def test_going_back_leaves_the_batches_behind_and_skips_the_step() -> None:
    engine, _ = run({"nonfinite": ["Rollback"]}, range(60, 61))
    [made] = engine.record.interventions
    assert (made.step, made.remedy, made.detail["to_step"]) == (60, "Rollback", 49)
    assert engine.record.outcome == "repaired"
    assert all(bool(torch.isfinite(p).all()) for p in engine.model.parameters())


@pytest.mark.parametrize("late", [False, True])
def test_going_back_from_a_bad_batch_keeps_the_buffers_that_it_has_put_back(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: late)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    engine = Engine(model, optimizer, prescription={"nonfinite": ["Rollback", "SkipStep"]})
    step = 0
    while not engine.record.interventions:
        inputs = torch.randn(16, 4) * (math.nan if step == 60 else 1.0) + step
        loss = nn.functional.mse_loss(model(inputs), torch.ones(16, 2))
        optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss)
        optimizer.step()
        step += 1
    [made] = engine.record.interventions
    assert made.remedy == "Rollback"
    snapshots = engine._treatment.snapshots
    assert snapshots is not None
    entry = snapshots.entries[-1]
    assert entry["step"] == made.detail["to_step"]
    torch.testing.assert_close(list(model.buffers()), snapshots.buffers(entry), rtol=0, atol=0)


def test_an_outlier_seen_a_step_too_late_costs_no_steps_but_its_squares() -> None:
    torch.manual_seed(0)
    model = mlp(4, 16, 16, 2)
    engine = Engine(model, torch.optim.Adam(model.parameters(), lr=0.001, betas=(0.9, 0.95)), prescription="full")
    squares: list[float] = []
    weights: list[torch.Tensor] = []
    for step in range(110):
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2]) * (1e4 if step == 100 else 1.0)
        engine.optimizer.zero_grad()
        loss.backward()
        weights.append(model[0].weight.detach().clone())
        engine.before_step(loss=loss)
        engine.optimizer.step()
        squares.append(float(engine.optimizer.state[model[0].weight]["exp_avg_sq"].mean()))
    [made] = engine.record.interventions
    assert (made.step, made.remedy, made.detail["of"]) == (101, "Rollback", "the optimizer's memory")
    assert squares[100] > 1e5 * squares[99]
    assert squares[101] < 10 * squares[99]
    farthest = max(float((after - before).abs().max()) for before, after in itertools.pairwise(weights))
    assert farthest < 0.01, "the weights were not put back: that would have been 13 steps"


def test_a_second_time_it_goes_to_where_it_was_calm_since() -> None:
    engine, _ = run({"nonfinite": ["Rollback"]}, [*range(60, 61), *range(110, 111)], steps=130)
    first, second = (made.detail["to_step"] for made in engine.record.interventions)
    assert first < 60 < second < 110


def test_how_far_a_step_moved_other_weights_is_forgotten() -> None:
    torch.manual_seed(0)
    model = mlp(4, 16, 16, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    moved: list[float] = []
    engine = Engine(
        model,
        optimizer,
        rules=[Once()],
        prescription={"exploding": ["Rollback"]},
        diagnose=False,
        on_step_result=lambda outlook: moved.append(outlook.reading.moved),
    )
    for step in range(63):
        loss = nn.functional.mse_loss(model(torch.ones(16, 4) * step), torch.zeros(16, 2))
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
    engine.close()
    assert math.isfinite(moved[59])
    assert math.isnan(moved[60]), "the step before was skipped"
    assert 0 < moved[62] < 0.01, "at the rate that was lowered"


def test_what_is_lost_again_after_it_has_helped_is_gone_back_from_again() -> None:
    torch.manual_seed(0)
    model = mlp(4, 16, 16, 2)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    plan = {"exploding": ["Rollback", "ClipNorm"]}
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    engine = Engine(model, optimizer, rules=[Once()], prescription=plan, diagnose=False)
    for step in range(120):
        if step == 100:
            model.load_state_dict(fresh)
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2])
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
    engine.close()
    first, second = engine.record.interventions
    assert (first.remedy, second.remedy) == ("Rollback", "Rollback")
    assert first.detail["to_step"] < 59 < second.detail["to_step"] < 100
    assert second.detail["lr_scale"] > 0.3 * first.detail["lr_scale"], "the first alert tells nothing of its rate"


@pytest.mark.numerics
def test_a_net_that_an_explosion_has_killed_is_brought_back() -> None:
    torch.manual_seed(0)
    model = mlp(4, 16, 16, 16, 2)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    plan = {"exploding": ["ClipNorm", "Rollback"]}
    engine = Engine(model, optimizer, rules=[Once(), Vanishing()], prescription=plan, diagnose=False)
    losses = []
    for step in range(120):
        if step == 62:
            with torch.no_grad():
                model[4].bias.fill_(-100.0)
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
        # With a constant, so that the loss itself says little of what is lost.
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2]) + 10.0
        losses.append(float(loss.detach()) - 10.0)
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
    engine.close()
    assert [made.remedy for made in engine.record.interventions] == ["ClipNorm", "Rollback"]
    assert engine.record.interventions[-1].detail["to_step"] < 59
    assert sum(losses[-10:]) < 0.5 * sum(losses[65:75])


def test_where_nothing_was_learned_there_is_nothing_to_go_back_to() -> None:
    torch.manual_seed(0)
    cell = nn.RNN(2, 16)
    nn.init.orthogonal_(cell.weight_hh_l0, gain=1.3)
    engine = Engine(cell, SGD(cell.parameters(), lr=1e-4), prescription={"exploding": ["Rollback"]})
    for _ in range(120):
        loss = (cell(torch.randn(40, 8, 2))[0] - 1.0).square().mean()
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
    engine.close()
    assert [(alert.step, alert.kind) for alert in engine.record.alerts] == [(79, "exploding")]
    assert not engine.record.interventions


def test_where_nothing_is_finite_from_there_either_it_is_left_at_that() -> None:
    engine, _ = run({"nonfinite": ["SkipStep", "Rollback"]}, range(60, 1000))
    remedies = [made.remedy for made in engine.record.interventions]
    assert remedies == ["SkipStep", "Rollback", "SkipStep"]
