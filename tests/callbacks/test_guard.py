"""GradientGuard on real Trainers."""

from __future__ import annotations

import copy
import logging
import math
import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import ClipNorm, GradientGuard, GradientMonitor, ReduceLR, Remedy, SkipStep
from tests.support.helpers import SGD, Poisoned, Regression, batches, fit, mlp


class Steps(Callback):
    """Writes down what each step does to the weights, and with which gradient norm and learning rate."""

    def __init__(self) -> None:
        self.changes: list[float] = []
        self.norms: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.before = torch.nn.utils.parameters_to_vector(pl_module.parameters()).clone()

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *args: Any) -> None:
        after = torch.nn.utils.parameters_to_vector(pl_module.parameters())
        self.changes.append(float((after - self.before).norm()))
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()) if gradients else 0.0)


def spiked(guard: GradientMonitor, factors: dict[int, float] | None = None, **options: Any) -> Steps:
    """A run of 32 steps with a spike at step 15."""
    torch.manual_seed(0)
    steps = Steps()
    fit(Poisoned(mlp(4, 8, 8, 2), factors={15: 1e4} if factors is None else factors), guard, steps, **options)
    return steps


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


def test_a_healthy_run_is_bit_identical_with_and_without_the_guard() -> None:
    def weights(*callbacks: Callback) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module = Regression(mlp(4, 8, 8, 2), lambda p: torch.optim.AdamW(p, lr=0.01))
        fit(module, *callbacks, max_epochs=3)
        return list(module.parameters())

    guard = GradientGuard()
    for a, b in zip(weights(), weights(guard), strict=True):
        assert torch.equal(a, b)
    assert guard.interventions == []


def test_escalation_follows_the_order_of_the_prescription() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1), ReduceLR(0.5)]})
    spiked(guard, factors=dict.fromkeys(range(15, 25), 1e3))
    assert [i.remedy for i in guard.interventions] == ["ClipNorm", "ReduceLR"]
    assert [a.severity for a in guard.alerts][:2] == ["warning", "critical"]


def test_what_clipping_absorbs_is_no_reason_to_escalate() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1), ReduceLR(0.5)]})
    spiked(guard, factors={15: 1e3, 16: 1e3})
    assert [i.remedy for i in guard.interventions] == ["ClipNorm"]
    assert [a.severity for a in guard.alerts] == ["warning", "critical"]


def test_plain_values_say_the_same_as_objects() -> None:
    plain = GradientGuard({"exploding": [{"ClipNorm": 0.1}, {"ReduceLR": {"factor": 0.5}}], "nonfinite": ["SkipStep"]})
    objects = GradientGuard({"exploding": [ClipNorm(0.1), ReduceLR(0.5)], "nonfinite": [SkipStep()]})
    factors = {12: math.nan, 15: 1e4, 16: 1e4}
    assert spiked(plain, factors).changes == spiked(objects, factors).changes
    assert plain.interventions == objects.interventions


def test_a_remedy_of_ones_own_is_one_class() -> None:
    class Halve(Remedy):
        on = False

        def engage(self, step: Any, evidence: Any) -> dict[str, Any]:
            self.on = True
            return {"evidence": sorted(evidence)}

        def act(self, step: Any) -> bool:
            if self.on:
                step.multiply(0.5)
            return self.on

        def state_dict(self) -> dict[str, Any]:
            return {"on": self.on}

        def load_state_dict(self, state: Any) -> None:
            self.on = state["on"]

    guard = GradientGuard({"exploding": [Halve()]})
    halved, plain = spiked(guard), spiked(GradientMonitor())
    assert halved.norms[15] == pytest.approx(plain.norms[15] / 2)
    assert guard.interventions[0].remedy == "Halve"


def test_a_trainer_that_clips_is_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    guard = GradientGuard()
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        steps = spiked(guard, gradient_clip_val=0.5)
    assert "the Trainer clips already, gradient_clip_val=0.5" in caplog.text
    planned = [type(remedy).__name__ for remedy in guard.prescription.remedies["exploding"]]
    assert "ClipNorm" in planned, "the next Trainer may not clip"
    assert guard.alerts == [], "what is clipped already throws no weights about"
    assert steps.norms[15] == pytest.approx(0.5, rel=1e-4)


def test_remedies_that_are_on_act_between_measurements_too() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1)]}, every_n_steps=5)
    steps = spiked(guard, factors={60: 1e4, 61: 1e4}, max_epochs=3)
    assert guard.interventions[0].step == 60
    assert max(steps.norms[60:]) <= 0.1 * (1 + 1e-5)


@pytest.mark.slow
def test_outliers_that_clipping_absorbs_do_not_lower_the_rate_for_good() -> None:
    guard = GradientGuard()
    spiked(guard, dict.fromkeys(range(30, 800, 50), 1e3), max_epochs=25)
    assert [i.remedy for i in guard.interventions] == ["ClipNorm"]
    assert {a.severity for a in guard.alerts} == {"warning"}


def test_a_loss_that_is_zero_at_first_is_no_baseline() -> None:
    guard = GradientGuard()
    spiked(guard, dict.fromkeys(range(20), 0.0), max_epochs=2)
    assert guard.alerts == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_loss_that_changes_its_scale_under_adam_is_a_new_normal(scale: float) -> None:
    guard = GradientGuard()
    make = lambda p: torch.optim.Adam(p, lr=1e-3)  # noqa: E731
    fit(Poisoned(mlp(4, 8, 8, 2), make, factors=dict.fromkeys(range(40), scale)), guard, max_epochs=8)
    assert len(guard.alerts) <= 1
    assert guard.still_wrong == []


@pytest.mark.parametrize(("scale", "zero"), [(1e2, True), (1e4, False), (1e4, True)])
def test_a_regression_that_has_far_to_go_is_let_go_there(scale: float, zero: bool) -> None:
    def loss(*callbacks: Callback) -> float:
        torch.manual_seed(0)
        inputs = torch.randn(512, 8)
        targets = scale * inputs @ torch.randn(8, 1)
        module = Regression(mlp(8, 1), lambda p: SGD(p, lr=0.05))
        if zero:
            torch.nn.init.zeros_(module.model[0].weight)
        fit(module, *callbacks, data=DataLoader(TensorDataset(inputs, targets), 32), max_epochs=20)
        return float(torch.nn.functional.mse_loss(module.model(inputs), targets))

    guard = GradientGuard()
    assert loss(guard) == loss()
    assert guard.alerts == []


@pytest.mark.parametrize("lr", [None, "absent"])
def test_an_optimizer_that_finds_its_own_rate_is_watched_too(lr: str | None) -> None:
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": None} if lr is None else {"gain": 1.0})

        def step(self, closure: Any = None) -> Any:
            loss = closure()
            for p in self.param_groups[0]["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad, alpha=-0.01)
            return loss

    guard = GradientGuard({"exploding": ["ReduceLR"], "nonfinite": ["SkipStep"]})
    fit(Poisoned(mlp(4, 8, 8, 2), Own, factors={15: 1e5, 25: math.nan}), guard)
    assert [i.remedy for i in guard.interventions if i.alert_kind == "nonfinite"] == ["SkipStep"]
    assert {i.remedy for i in guard.interventions if i.alert_kind == "exploding"} == {"ReduceLR"}


def test_sgd_without_friction_is_watched_too() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2), lambda p: SGD(p, lr=1e-4, momentum=1.0)), monitor)
    assert len(monitor.history()) == 64


def test_clipping_cannot_mend_a_non_finite_gradient_and_leaves_it_to_the_next() -> None:
    guard = GradientGuard({"nonfinite": ["ClipNorm", "SkipStep"]})
    module = Poisoned(mlp(4, 8, 2), factors={10: math.nan})
    fit(module, guard)
    assert [i.remedy for i in guard.interventions] == ["SkipStep"]
    assert all(torch.isfinite(p).all() for p in module.parameters())


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


def test_a_guard_can_be_copied_and_pickled() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(1.0)]})
    fit(Regression(mlp(4, 2)), guard)
    assert copy.deepcopy(guard).prescription.remedies.keys() == guard.prescription.remedies.keys()
    assert pickle.loads(pickle.dumps(GradientGuard())).alerts == []


@pytest.mark.parametrize(
    ("prescription", "message"),
    [
        ({"exploding": [{"ClipNorm": -1.0}]}, "max_norm must be a finite number above 0, got -1.0"),
        ({"exploding": ["ClipNrm"]}, "unknown remedy 'ClipNrm'"),
        ({"explode": ["ClipNorm"]}, "unknown alert kind 'explode'"),
    ],
)
def test_a_wrong_prescription_is_named(prescription: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientGuard(prescription)


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
