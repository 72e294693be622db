"""New weights where another remedy has gone back to the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import (
    Alert,
    Batch,
    ClipNorm,
    Engine,
    GradientGuard,
    NonFinite,
    Prescription,
    Reading,
    Reinitialize,
    Rollback,
    Rule,
)
from grad_callbacks.treatment.prescription.presets import Plan
from tests.support.helpers import Poisoned, Regression, batches, fit, mlp, pending
from tests.support.recall import Recall, told_early

DEEP = (4, *[16] * 8, 2)
BESIDE: dict[str, Any] = {"Reinitialize": {"beside": True}}


class Distant(Recall):
    """Reads at the end what it was told at the beginning, with an LSTM as torch initialises it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(2, 24, batch_first=True)


@pytest.mark.numerics
def test_where_a_rate_too_high_leads_back_to_the_start_a_recurrence_begins_with_better_weights() -> None:
    torch.manual_seed(0)
    inputs, targets = told_early(30)
    task = Regression(Distant(), partial(torch.optim.Adam, lr=1.0))
    guard = GradientGuard({"exploding": ["Rollback", BESIDE]})
    fit(task, guard, data=DataLoader(TensorDataset(inputs, targets), batch_size=32), max_epochs=12)
    assert [made.remedy for made in guard.interventions] == ["Rollback", "Reinitialize"]
    assert float((task.model(inputs).sign() == targets).float().mean()) > 0.95


@pytest.mark.parametrize(
    ("sizes", "poisoned", "replaced"),
    [(DEEP, 8, True), ((4, 16, 2), 8, False), (DEEP, 45, False)],
    ids=["deep", "well already", "later than the start"],
)
def test_beside_a_return_to_the_start_only_weights_that_are_poor_are_replaced(
    sizes: tuple[int, ...], poisoned: int, replaced: bool
) -> None:
    torch.manual_seed(0)
    task = Poisoned(mlp(*sizes, activation=nn.Tanh), partial(torch.optim.SGD, lr=1e-5), factors={poisoned: 1e9})
    guard = GradientGuard({"exploding": ["Rollback", BESIDE]})
    fit(task, guard, data=batches(60, size=64))
    assert [made.remedy for made in guard.interventions] == ["Rollback", *["Reinitialize"] * replaced]
    assert (guard.interventions[0].detail["to_step"] == 0) == (poisoned == 8)


def test_what_a_return_to_the_start_has_thrown_away_is_nothing_to_lose() -> None:
    torch.manual_seed(0)
    task = Regression(mlp(*DEEP, activation=nn.Tanh), partial(torch.optim.Adam, lr=0.01))
    guard = GradientGuard({"exploding": ["Rollback", BESIDE]}, rules=[Saying("exploding", 30)])
    fit(task, guard, data=batches(60, size=64))
    assert [made.remedy for made in guard.interventions] == ["Rollback", "Reinitialize"]
    assert guard.interventions[0].detail["to_step"] == 0


class Saying(Rule):
    """Raises a critical alert at one step."""

    active = False

    def __init__(self, kind: str, step: int) -> None:
        self.kind, self.step = kind, step

    def judge(self, reading: Reading) -> Alert | None:
        is_now = reading.step == self.step
        return Alert(self.kind, "critical", reading.step, (), "", {}, "", "") if is_now else None

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def loop(model: nn.Module, shape: Sequence[int], plan: Plan, rules: list[Any], poisoned: int = -1) -> Engine:
    """Eight steps of a plain loop, each with a batch of its own; the gradients of one are NaN."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    engine = Engine(model, optimizer, rules=rules, prescription=plan, diagnose=False)
    for number in range(8):
        inputs = 1 + torch.randn(*shape, generator=torch.Generator().manual_seed(number))

        def loss_of(inputs: Tensor = inputs) -> Tensor:
            return model(inputs).square().mean()

        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        if number == poisoned:
            for parameter in model.parameters():
                parameter.grad.fill_(math.nan)  # type: ignore[union-attr]
        engine.before_step(loss=loss, batch=Batch(inputs, number, loss_of))
        optimizer.step()
    engine.close()
    return engine


@pytest.mark.parametrize("scheme", ["orthogonal", "lsuv"])
def test_a_run_is_given_new_weights_once(scheme: str) -> None:
    torch.manual_seed(0)
    plan: Plan = {"vanishing": [{"Reinitialize": scheme}], "exploding": ["Rollback", BESIDE]}
    engine = loop(mlp(*DEEP, activation=nn.Sigmoid), (64, 4), plan, [Saying("exploding", 5)])
    assert [(each.remedy, each.step) for each in engine.record.interventions] == [("Reinitialize", 0), ("Rollback", 5)]


def test_new_weights_at_the_start_keep_the_running_statistics_of_the_start() -> None:
    torch.manual_seed(0)
    norm, means = nn.BatchNorm1d(4), list[Tensor]()
    norm.register_forward_pre_hook(lambda module, _: means.append(module.running_mean.clone()))
    model = nn.Sequential(norm, mlp(*DEEP, activation=nn.Tanh))
    plan: Plan = {"nonfinite": ["Rollback", "SkipStep", BESIDE]}
    engine = loop(model, (64, 4), plan, [NonFinite()], poisoned=3)
    assert [each.remedy for each in engine.record.interventions] == ["Rollback", "Reinitialize"]
    torch.testing.assert_close(means[-4], means[1], msg="those of one batch, not of four")


def test_it_acts_after_what_it_stands_beside_wherever_the_plan_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Prescription({"exploding": [BESIDE, "ClipNorm", "Rollback"]})
    acted: list[str] = []
    for cls in (ClipNorm, Rollback, Reinitialize):
        monkeypatch.setattr(cls, "act", lambda remedy, step: bool(acted.append(type(remedy).__name__)))
    model = mlp(4, 2)
    model(torch.ones(1, 4)).sum().backward()
    plan.act(pending(model))
    assert acted == ["ClipNorm", "Rollback", "Reinitialize"]


@pytest.mark.parametrize(("spec", "looks"), [("Reinitialize", True), (BESIDE, False)])
def test_beside_another_it_is_no_reason_to_look_at_the_start(spec: Any, looks: bool) -> None:
    assert Prescription({"exploding": ["Rollback", spec]}).looks_at_the_start is looks
