"""The schedules, as the rates that an optimizer really has at each step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from experiments import schedules
from experiments.data import Line
from experiments.tasks import Regressor

STEPS = 40
RATE = 0.01
Schedule = Callable[..., torch.optim.lr_scheduler.LRScheduler]


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"] / RATE)


def rates(schedule: Schedule, **arguments: Any) -> list[float]:
    """Train a line and return the rate of each step, as a share of the optimizer's own."""
    task = Regressor(
        nn.Linear(1, 1),
        lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=0.5),
        lambda optimizer, steps: schedule(optimizer, steps, **arguments),
    )
    seen = Rates()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[seen],
    )
    trainer.fit(task, datamodule=Line())
    return seen.seen


def falls(values: list[float]) -> bool:
    return all(second < first for first, second in pairwise(values))


def rises(values: list[float]) -> bool:
    return all(second > first for first, second in pairwise(values))


def test_a_cosine_falls_from_the_full_rate_to_almost_nothing() -> None:
    seen = rates(schedules.cosine)
    assert falls(seen)
    assert seen[0] == 1
    assert seen[STEPS // 2] == pytest.approx(0.5)
    assert seen[-1] < 0.01


def test_a_cosine_with_restarts_is_back_at_the_full_rate_each_time() -> None:
    seen = rates(schedules.cosine_restarts, cycles=4)
    assert [step for step, rate in enumerate(seen) if rate == 1] == [0, 10, 20, 30]
    assert seen[9] < 0.05


def test_an_exponential_decay_falls_by_one_factor() -> None:
    seen = rates(schedules.exponential, final=0.01)
    factors = [second / first for first, second in pairwise(seen)]
    assert factors == pytest.approx([0.01 ** (1 / STEPS)] * (STEPS - 1))


def test_steps_drop_the_rate_at_thirds() -> None:
    seen = rates(schedules.steps, factor=0.1, drops=2)
    assert seen == pytest.approx([1.0] * 13 + [0.1] * 13 + [0.01] * 14)


def test_one_cycle_rises_to_its_peak_and_ends_low() -> None:
    seen = rates(schedules.one_cycle, peak=10.0, rise=0.3)
    top = seen.index(max(seen))
    assert seen[0] == pytest.approx(1)
    assert max(seen) == pytest.approx(10, rel=0.02)
    assert top == pytest.approx(0.3 * STEPS, abs=1)
    assert rises(seen[: top + 1])
    assert falls(seen[top:])
    assert seen[-1] < 0.1


def test_a_cyclic_rate_returns_to_its_start() -> None:
    seen = rates(schedules.cyclic, peak=10.0, cycles=4)
    assert [step for step, rate in enumerate(seen) if rate == pytest.approx(1)] == [0, 10, 20, 30]
    assert [step for step, rate in enumerate(seen) if rate == pytest.approx(10)] == [5, 15, 25, 35]


@pytest.mark.parametrize(("start", "first"), [(0.0, 0.0), (0.2, 0.2)])
def test_a_warmup_rises_evenly_and_stays(start: float, first: float) -> None:
    seen = rates(schedules.warmup, rise=10, start=start)
    assert seen[0] == first
    assert seen[5] == pytest.approx((1 + first) / 2)
    assert seen[10:] == [1.0] * 30


def test_a_warmup_with_a_cosine_rises_and_falls() -> None:
    seen = rates(schedules.warmup_cosine, rise=10)
    assert seen[0] == 0
    assert rises(seen[:11])
    assert seen[10] == 1
    assert falls(seen[10:])
    assert seen[-1] < 0.01


def test_an_inverse_root_quarters_in_sixteen_times_the_steps() -> None:
    seen = rates(schedules.inverse_root, rise=2)
    assert seen[:2] == [0.5, 1.0]
    assert seen[31] == pytest.approx(0.25)
