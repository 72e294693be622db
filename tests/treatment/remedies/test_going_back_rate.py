"""The rate after Rollback and Warmup, and the factor that several remedies share."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grad_callbacks import Alert, Engine, Reading, Rule
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.step.learning_rate import LearningRate
from tests.support.helpers import SGD, mlp
from tests.support.told_once import Once


def walk(engine: Engine, steps: Iterable[int]) -> None:
    """A plain loop whose engine is not told the loss."""
    for step in steps:
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        engine.optimizer.zero_grad()
        nn.functional.mse_loss(engine.model(inputs), inputs[:, :2]).backward()
        engine.before_step()
        engine.optimizer.step()


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
