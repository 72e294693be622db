"""What is done in a step in which nothing is wrong: only what somebody needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks import Engine, Exploding, Prescription, Reading, Remedy
from grad_callbacks.measurement.loss_level import LOSS_LEVEL
from grad_callbacks.reporting.loss_recovery import LIMITS as RECOVERY
from grad_callbacks.reporting.loss_recovery import LossRecovery
from grad_callbacks.treatment.step.snapshots import LIMITS as SNAPSHOTS


class Counting(Exploding):
    """Counts how often its state is asked for."""

    asked = 0

    def state_dict(self) -> dict[str, Any]:
        self.asked += 1
        return super().state_dict()


class Silent(Remedy):
    """Has no hook of its own but the one that it must have."""

    def engage(self, step: Any, evidence: Any) -> dict[str, Any] | None:
        return None


class Noting(Silent):
    """Counts the steps that it is shown."""

    def __init__(self) -> None:
        self.noted = self.prepared = self.acted = 0

    def note(self, step: Any, is_well: bool) -> None:
        self.noted += 1

    def before_backward(self, loss: Tensor) -> None:
        self.prepared += 1

    def act(self, step: Any) -> bool:
        self.acted += 1
        return False


def train(engine: Engine, steps: int) -> None:
    torch.manual_seed(0)
    for _ in range(steps):
        loss = engine.model(torch.randn(8, 4)).square().mean()
        engine.before_backward(loss)
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
        engine.optimizer.zero_grad()


def engine_with(**options: Any) -> Engine:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    return Engine(model, torch.optim.SGD(model.parameters(), lr=1e-3), **options)


def test_the_rules_states_are_copied_for_a_snapshot_alone() -> None:
    engine = engine_with(rules=[Counting()], prescription=Prescription())
    train(engine, 4 * SNAPSHOTS.interval + 1)
    (rule,) = engine.rules
    assert isinstance(rule, Counting)
    assert rule.asked == 1 + 4, "at the start, and for each snapshot"


def test_each_remedy_is_shown_each_step() -> None:
    engine = engine_with(prescription={"exploding": [Silent(), Noting()]})
    train(engine, 5)
    assert engine.prescription is not None
    noting = engine.prescription.remedies["exploding"][1]
    assert isinstance(noting, Noting)
    assert (noting.noted, noting.prepared, noting.acted) == (5, 5, 5)


def test_a_plan_that_is_replaced_is_followed() -> None:
    engine = engine_with(prescription={"exploding": [Noting()]})
    train(engine, 2)
    assert engine.prescription is not None
    other = Noting()
    engine.prescription.planned.lists = {"exploding": [other]}
    train(engine, 3)
    assert (other.noted, other.prepared, other.acted) == (3, 3, 3)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_the_norm_of_a_step_that_nobody_changes_is_the_measured_one(make: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    seen: list[tuple[float, float, Reading]] = []
    engine = Engine(
        model,
        make(model.parameters(), lr=1e-3),
        prescription=Prescription(),
        on_step_result=lambda result: seen.append((result.norm_clipped, result.coefficient, result.reading)),
    )
    train(engine, 5)
    assert len(seen) == 5
    assert all(norm == reading.norm and coefficient == 1.0 for norm, coefficient, reading in seen)


def test_losses_from_a_checkpoint_and_later_ones_have_one_level() -> None:
    loss = LossRecovery()
    for number in range(RECOVERY.window // 2):
        loss.feed(torch.tensor(float(number)))
    again = LossRecovery()
    again.load_state_dict(loss.state_dict())
    for each in (loss, again):
        for number in range(RECOVERY.window // 2, RECOVERY.window):
            each.feed(torch.tensor(float(number)))
    assert again.state_dict() == loss.state_dict()
    assert len(loss.state_dict()["levels"]) == 1
    assert len(loss.state_dict()["first"]) == LOSS_LEVEL.window
