"""Rollback and Warmup in an engine of their own, and the factor that several remedies share."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grad_callbacks import Alert, Engine, Reading, Rule, Vanishing
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.step.learning_rate import LearningRate
from tests.support.helpers import SGD, mlp


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


def walk(engine: Engine, steps: Iterable[int]) -> None:
    """A plain loop whose engine is not told the loss."""
    for step in steps:
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        engine.optimizer.zero_grad()
        nn.functional.mse_loss(engine.model(inputs), inputs[:, :2]).backward()
        engine.before_step()
        engine.optimizer.step()


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
    assert engine._treatment.snapshots is not None
    entry = engine._treatment.snapshots.entries[-1]
    assert entry["step"] == made.detail["to_step"]
    assert all(torch.equal(buffer, kept) for buffer, kept in zip(model.buffers(), entry["buffers"], strict=True))


def test_a_second_time_it_goes_to_where_it_was_calm_since() -> None:
    engine, _ = run({"nonfinite": ["Rollback"]}, [*range(60, 61), *range(110, 111)], steps=130)
    first, second = (made.detail["to_step"] for made in engine.record.interventions)
    assert first < 60 < second < 110


class Once(Rule):
    """Says once, at the 60th reading, that the rate is too high."""

    kind = "exploding"
    active = False
    count = 0

    def judge(self, reading: Reading) -> Alert | None:
        self.count += 1
        cause = "learning rate too high"
        return Alert("exploding", "critical", 59, (), "", {"moved": 99.0}, cause, "") if self.count == 60 else None

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = max(self.count, state["count"])


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


@pytest.mark.parametrize(
    ("make", "scales"),
    [
        (torch.optim.Adam, [0.03 / 0.9] * 5),
        (torch.optim.RMSprop, [0.03 / 0.9 / 0.1 * math.sqrt(1 - 0.99**taken) for taken in range(1, 6)]),
    ],
)
def test_first_steps_too_long_are_cut_to_the_stride_and_those_of_rmsprop_rise_as_its_mean_fills(
    make: type[torch.optim.Optimizer], scales: list[float]
) -> None:
    class Seen(Once):
        def judge(self, reading: Reading) -> Alert | None:
            told = {"moved": 0.9}
            found = Alert("exploding", "critical", 2, (), "", told, "learning rate too high", "")
            return found if reading.step == 2 else None

    model = mlp(4, 8, 2)
    optimizer = make(model.parameters(), lr=0.1)  # type: ignore[call-arg]
    engine = Engine(model, optimizer, rules=[Seen()], prescription={"exploding": ["Rollback"]}, diagnose=False)
    rates: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: rates.append(engine.learning_rate.effective()[0]))
    walk(engine, range(8))
    engine.close()
    assert rates[-5:] == pytest.approx([0.1 * scale for scale in scales])


@pytest.mark.parametrize(("factor", "to_step", "scale"), [(1.0, 0, 0.1), (500.0, 74, 1 / 500)])
def test_a_net_that_a_raised_rate_has_killed_goes_back_no_further_than_before_it(
    factor: float, to_step: int, scale: float
) -> None:
    class Seen(Once):
        kind = "vanishing"

        def judge(self, reading: Reading) -> Alert | None:
            self.count += 1
            found = Alert("vanishing", "critical", 100, (), "", {}, "learning rate too high", "")
            return found if self.count == 101 else None

    model = mlp(4, 16, 16, 2)
    plan = {"vanishing": ["Rollback"]}
    engine = Engine(model, SGD(model.parameters(), lr=1e-4), rules=[Seen()], prescription=plan, diagnose=False)
    walk(engine, range(95))
    engine.optimizer.param_groups[0]["lr"] *= factor
    walk(engine, range(95, 104))
    engine.close()
    [made] = engine.record.interventions
    assert made.detail["to_step"] == to_step
    assert made.detail["lr_scale"] == pytest.approx(scale)


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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6), st.integers(1, 30))
def test_what_was_cut_comes_back_to_the_bit(factors: list[float], rising: int) -> None:
    parameter = nn.Parameter(torch.ones(1))
    rate = LearningRate(torch.optim.SGD([parameter], lr=0.1))
    cuts = [LRMultiplier() for _ in factors]
    for cut, factor in zip(cuts, factors, strict=True):
        cut.set(rate, factor)
    assert rate.scale == pytest.approx(math.prod(factors))
    for cut in cuts:
        cut.rising = rising
    lowest = rate.scale
    for _ in range(rising):
        before = rate.scale
        for cut in cuts:
            cut.rise(rate)
        assert rate.scale >= before * (1 - 1e-9) >= lowest * (1 - 1e-6)
    assert rate.scale == 1.0
    assert all(cut.scale == 1.0 for cut in cuts)


def test_a_late_warm_up_begins_again_and_rises_to_the_users_rate() -> None:
    weights: list[Tensor] = []

    class Seen(Rule):
        kind = "vanishing"
        active = False

        def __init__(self) -> None:
            self.count = 0

        def judge(self, reading: object) -> object:
            self.count += 1
            return Alert("vanishing", "critical", 20, (), "", {}, "missing warm-up", "") if self.count == 21 else None

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = max(self.count, state["count"])

    torch.manual_seed(0)
    model = mlp(4, 8, 2)
    first = [p.detach().clone() for p in model.parameters()]
    plan = {"vanishing": [{"Warmup": 10}]}
    engine = Engine(model, SGD(model.parameters(), lr=0.1), rules=[Seen()], prescription=plan, diagnose=False)
    rates: list[float] = []
    engine.optimizer.register_step_pre_hook(lambda *_: rates.append(engine.learning_rate.effective()[0]))
    for step in range(40):
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2])
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
        if step == 20:
            weights = [p.detach().clone() for p in model.parameters()]
    engine.close()
    assert all(torch.equal(a, b) for a, b in zip(weights, first, strict=True)), "from the first weights, no step taken"
    assert rates[21:31] == pytest.approx([0.1 * k / 10 for k in range(1, 11)])
    assert rates[31:] == [0.1] * 9


@pytest.mark.parametrize(
    ("seen", "scale"),
    [
        ({"loss_ratio_of_last_step": 1.5}, 0.03),
        ({"first_reading": 1.0}, 0.03),
        ({"loss_ratio_of_last_step": 50.0}, 0.1),
        ({}, 0.1),
    ],
)
def test_the_rate_that_helped_on_trial_is_taken_unless_the_weights_were_thrown_away(
    seen: dict[str, float], scale: float
) -> None:
    class Seen(Rule):
        kind = "exploding"
        active = False

        def judge(self, reading: Reading) -> Alert | None:
            told = {"rate_that_helps": 0.03, **seen}
            found = Alert("exploding", "critical", 4, (), "", told, "learning rate too high", "")
            return found if reading.step == 4 else None

        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state: dict[str, int]) -> None:
            pass

    model = mlp(4, 8, 2)
    plan = {"exploding": ["Rollback"]}
    engine = Engine(model, SGD(model.parameters(), lr=0.1), rules=[Seen()], prescription=plan, diagnose=False)
    walk(engine, range(8))
    engine.close()
    [made] = engine.record.interventions
    assert made.detail["lr_scale"] == pytest.approx(scale)
