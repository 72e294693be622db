"""GradientGuard on real Trainers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from grad_callbacks import ClipNorm, GradientGuard, GradientMonitor, ReduceLR
from tests.support.guarded_steps import Steps, spiked
from tests.support.helpers import SGD, Poisoned, batches, fit, mlp


def test_clipping_acts_in_the_step_that_raised_the_alarm() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1)]})
    steps = spiked(guard)
    [alert], [intervention] = guard.alerts, guard.interventions
    assert alert.step == intervention.step == 15
    assert (intervention.remedy, intervention.alert_kind) == ("ClipNorm", "exploding")
    assert intervention.detail["max_norm"] == 0.1
    assert steps.norms[15] == pytest.approx(0.1, rel=1e-5)
    assert steps.changes[15] == pytest.approx(0.01 * 0.1, rel=1e-3)
    assert steps.norms[14] > 0.1, "before the alert nothing is clipped"
    assert max(steps.norms[15:]) <= 0.1 * (1 + 1e-5), "after it everything is"
    assert intervention.detail["steps"] == sum(norm > 0.0999 for norm in steps.norms[15:])


def test_what_happens_without_the_guard_is_much_worse() -> None:
    assert spiked(GradientMonitor()).changes[15] > 1.0


def test_a_lowered_rate_acts_in_the_same_step_and_stays() -> None:
    guard = GradientGuard({"exploding": [ReduceLR(0.1)]})
    steps = spiked(guard)
    [intervention] = guard.interventions
    assert intervention.detail["lr"] == [pytest.approx(0.001)]
    for i, rate in ((14, 0.01), (15, 0.001), (16, 0.001), (31, 0.001)):
        assert steps.changes[i] == pytest.approx(rate * steps.norms[i], rel=1e-2)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_lowered_rate_survives_a_scheduler_that_overwrites(interval: str) -> None:
    class Scheduled(Poisoned):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.01)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    steps = Steps()
    guard = GradientGuard({"exploding": [ReduceLR(0.1)]})
    run = fit(Scheduled(mlp(4, 8, 8, 2), factors={15: 1e4}), guard, steps, max_epochs=2)
    assert steps.changes[60] == pytest.approx(0.001 * steps.norms[60], rel=1e-2)
    assert run.optimizers[0].param_groups[0]["lr"] == 0.01, "the user's own rate is left in place"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [lambda p: SGD(p, lr=0.01, momentum=0.9), lambda p: torch.optim.AdamW(p, lr=0.01)],
    ids=["momentum", "AdamW"],
)
def test_non_finite_steps_are_skipped_by_default(bad: float, make: Any) -> None:
    guard, steps = GradientGuard(), Steps()
    module = Poisoned(mlp(4, 8, 2), make, factors={10: bad, 12: bad})
    fit(module, guard, steps)
    assert steps.changes[10] == steps.changes[12] == 0.0
    assert steps.changes[11] > 0
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert [i.remedy for i in guard.interventions] == ["SkipStep"]
    assert guard.interventions[0].detail["steps"] == 2
    assert (guard.verdict, guard.outcome) == ("nonfinite", "unrepaired"), "20 calm readings have not passed yet"


def test_a_run_that_is_calm_again_is_repaired() -> None:
    guard = GradientGuard()
    fit(Poisoned(mlp(4, 8, 2), factors={5: math.nan}), guard)
    assert (guard.verdict, guard.outcome) == ("nonfinite", "repaired")
    assert "repaired" in guard.report()
    assert "SkipStep" in guard.report()


def test_a_loss_that_does_not_come_back_is_not_called_repaired() -> None:
    class Forgetful(Poisoned):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return loss + 1000.0 if self.global_step > 5 else loss

    guard = GradientGuard()
    fit(Forgetful(mlp(4, 8, 2), factors={5: math.nan}), guard)
    assert guard.still_wrong == []
    assert guard.outcome == "unrepaired"


def test_remedies_that_are_on_act_between_measurements_too() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1)]}, every_n_steps=5)
    steps = spiked(guard, factors={60: 1e4, 61: 1e4}, max_epochs=3)
    assert guard.interventions[0].step == 60
    assert max(steps.norms[60:]) <= 0.1 * (1 + 1e-5)


def test_two_optimizers_are_treated_each_by_itself() -> None:
    class Two(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.one, self.two = mlp(4, 8, 8, 2), mlp(4, 8, 8, 2)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            inputs, targets = batch
            for i, (optimizer, model) in enumerate(zip(self.optimizers(), (self.one, self.two), strict=True)):
                loss = (model(inputs) - targets).square().mean() * (1e4 if i == 1 and batch_idx == 15 else 1.0)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [SGD(m.parameters(), lr=0.01) for m in (self.one, self.two)]

    guard = GradientGuard({"exploding": [ClipNorm(0.1), ReduceLR(0.1)]})
    fit(Two(), guard)
    [alert], [intervention] = guard.alerts, guard.interventions
    assert (alert.optimizer, intervention.optimizer, alert.step) == (1, 1, 31)
    thresholds = [guard.state_dict()["engines"][i]["prescription"]["exploding"][0][1]["threshold"] for i in (0, 1)]
    assert thresholds == [None, 0.1]


def test_an_exception_in_mid_step_leaves_the_users_rate() -> None:
    class Fails(Poisoned):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 20:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    module, optimizers = Fails(mlp(4, 8, 8, 2), factors={15: 1e4}), []
    module.make_optimizer = lambda p: optimizers.append(SGD(p, lr=0.01)) or optimizers[0]
    guard = GradientGuard({"exploding": [ReduceLR(0.1)]})
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(module, guard, data=batches())
    assert optimizers[0].param_groups[0]["lr"] == 0.01
    assert [i.remedy for i in guard.interventions] == ["ReduceLR"]
