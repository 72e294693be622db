"""What has gone wrong once, or would without a line that looks dispensable."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.bench.rules import FromTheStart
from grad_callbacks import ClipNorm, Engine, Prescription, Record, ReduceLR, Remedy, SkipStep, StepContext
from tests.support.helpers import SGD, mlp


def backward(model: nn.Module, factor: float = 1.0, scaler: Any = None) -> Tensor:
    loss = model(torch.ones(3, 4)).square().mean() * factor
    (scaler.scale(loss) if scaler else loss).backward()
    return loss


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU count as a device that runs behind the host."""
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: True)


def test_update_ratios_go_to_their_own_optimizers_rows() -> None:
    record, model = Record(), nn.Sequential(mlp(4, 8, 4), mlp(4, 8, 8, 2))
    optimizers = [SGD(model[0].parameters(), lr=0.0), SGD(model[1].parameters(), lr=0.1)]
    engines = [Engine(model, optimizer, record=record, index=i) for i, optimizer in enumerate(optimizers)]
    for _ in range(5):
        for engine in engines:
            model.zero_grad()
            loss = backward(model)
            engine.before_step(loss=loss)
            engine.optimizer.step()
    for engine in engines:
        engine.close()
    frame = record.history()
    still = frame["layer"].str.startswith("0.")
    assert frame["update_ratio"].notna().all()
    assert (frame.loc[still, "update_ratio"] == 0).all()
    assert (frame.loc[~still, "update_ratio"] > 0).any()


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_judged_step_is_skipped_exactly_under_a_loss_scaler(fused: bool, unscaled: bool) -> None:
    model = mlp(4, 8, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    prescription = Prescription({"exploding": [SkipStep()]})
    engine = Engine(model, optimizer, rules=[FromTheStart()], prescription=prescription)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [p.detach().clone() for p in model.parameters()]
    loss = backward(model, scaler=scaler)
    if unscaled:
        scaler.unscale_(optimizer)
    engine.before_step(loss=loss, scaler=scaler)
    scaler.step(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("late", [False, True])
def test_an_overflow_says_nothing_of_the_motion(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: late)
    model = mlp(4, 8, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    engine = Engine(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(12):
        optimizer.zero_grad()
        loss = backward(model, math.inf if step == 8 else 1.0, scaler)
        engine.before_step(loss=loss, scaler=scaler)
        scaler.step(optimizer)
        scaler.update()
        assert not np.any(engine.gauge.update_ratios.by_layer == 0)
    engine.close()
    frame = engine.record.history()
    assert frame.loc[frame["step"] == 8, "update_ratio"].isna().all()
    assert frame.loc[frame["step"] == 9, "update_ratio"].notna().all()


@pytest.mark.usefixtures("accelerator")
def test_fused_sgd_is_skipped_on_the_device_only_once_it_has_momentum() -> None:
    model = mlp(4, 8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    engine = Engine(model, optimizer, prescription=Prescription({"nonfinite": [SkipStep()]}))
    before = [p.detach().clone() for p in model.parameters()]
    for factor in (math.nan, 1.0):
        optimizer.zero_grad()
        backward(model, factor)
        engine.before_step()
        optimizer.step()
        moments = [state.get("momentum_buffer") for state in optimizer.state.values()]
        assert all(m is None or torch.isfinite(m).all() for m in moments)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) == (factor != 1.0)
    optimizer.zero_grad()
    backward(model)
    assert engine._treatment.must_wait(StepContext()) is False


def test_an_optimizer_that_wraps_another_is_taken_as_it_is() -> None:
    class Lookahead(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer
            super().__init__(optimizer.param_groups, {})

        def step(self, closure: Any = None) -> None:
            self.optimizer.step()

    model = mlp(4, 8, 2)
    outer = Lookahead(SGD(model.parameters(), lr=0.1))
    engine, scaler = Engine(model, outer), torch.amp.GradScaler("cpu", init_scale=1024.0)
    expected = torch.autograd.grad(model(torch.ones(3, 4)).square().mean(), list(model.parameters()))
    loss = backward(model, scaler=scaler)
    outlook = engine.before_step(loss=loss, scaler=scaler)
    scaler.step(outer)
    assert engine.optimizer is outer
    assert outlook is not None
    assert outlook.reading.norm == pytest.approx(float(torch.cat([g.flatten() for g in expected]).norm()), rel=1e-5)


@pytest.mark.usefixtures("accelerator")
def test_a_fused_optimizer_that_took_over_an_unfused_state_is_not_taken_for_fused() -> None:
    model = mlp(4, 8, 2)
    plain = torch.optim.AdamW(model.parameters(), lr=0.1)
    fused = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    fused.load_state_dict(plain.state_dict())
    engine = Engine(model, fused, prescription=Prescription())
    for _ in range(2):
        fused.zero_grad()
        backward(model)
        engine.before_step()
        fused.step()
    assert engine.measured == 2


def test_an_optimizer_is_treated_by_one_engine() -> None:
    model = mlp(4, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    first = Engine(model, optimizer, prescription=Prescription())
    Engine(model, optimizer)  # watching is free
    with pytest.raises(ValueError, match="treats this optimizer already"):
        Engine(model, optimizer, prescription=Prescription())
    first.close()
    Engine(model, optimizer, prescription=Prescription()).close()


def test_a_closed_engine_says_so() -> None:
    model = mlp(4, 2)
    engine = Engine(model, SGD(model.parameters(), lr=0.1))
    engine.close()
    with pytest.raises(RuntimeError, match="make a new one"):
        engine.before_step()


@pytest.mark.parametrize("plan", [{"exploding": [{"ClipNorm": 1.0}]}, Prescription({"exploding": [ClipNorm(1.0)]})])
def test_a_prescription_may_be_a_plan(plan: Any) -> None:
    model = mlp(4, 2)
    engine = Engine(model, SGD(model.parameters(), lr=0.1), prescription=plan)
    assert engine.prescription is not None
    assert len(engine.prescription.remedies["exploding"]) == 1
    with pytest.raises(ValueError, match="prescription must be"):
        Engine(model, SGD(model.parameters(), lr=0.1), prescription=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["replace", "rebuild"])
def test_parameters_exchanged_in_mid_run_are_read(change: str) -> None:
    model = mlp(4, 8, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    engine = Engine(model, optimizer)
    engine.before_step(loss=backward(model))
    model[2] = nn.Linear(8, 2)
    mine = list(model.parameters())
    optimizer.param_groups[0]["params"] = mine if change == "replace" else mine[2:]
    optimizer.zero_grad()
    outlook = engine.before_step(loss=backward(model))
    watched = optimizer.param_groups[0]["params"]
    truth = math.sqrt(sum(float(p.grad.square().sum()) for p in watched))
    assert outlook is not None
    assert outlook.reading.norm == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("reduced", [False, True])
def test_a_rate_set_in_the_middle_of_a_step_is_kept_and_scaled(reduced: bool) -> None:
    model = mlp(4, 2)
    optimizer = SGD(model.parameters(), lr=0.5)
    prescription = Prescription({"exploding": [ReduceLR(0.1)]})
    rules: list[Any] = [FromTheStart()] if reduced else ["Exploding"]
    engine = Engine(model, optimizer, rules=rules, prescription=prescription)
    used: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = 0.2  # a warm-up of one's own, as many write it in training_step
        loss = backward(model)
        engine.before_step(loss=loss)
        used.append(optimizer.param_groups[0]["lr"])
        return loss

    for _ in range(3):
        optimizer.step(closure)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
    assert used == pytest.approx([0.02 if reduced else 0.2] * 3)


def test_a_step_cut_short_leaves_the_rate_to_the_user() -> None:
    model = mlp(4, 2)
    optimizer = SGD(model.parameters(), lr=1.0)
    engine = Engine(model, optimizer)

    def fail() -> Tensor:
        engine.before_step(loss=backward(model))
        raise MemoryError

    with pytest.raises(MemoryError):
        optimizer.step(fail)
    optimizer.param_groups[0]["lr"] = 0.1
    backward(model)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.usefixtures("accelerator")
def test_what_comes_too_late_does_nothing() -> None:
    class Hasty(Remedy):
        """Acts where it is switched on."""

        def engage(self, step: Any, evidence: Any) -> dict[str, Any]:
            step.skip()
            step.limit_values(1e-9)
            step.limit_norm(1e-9)
            return {}

        def act(self, step: Any) -> bool:
            return False

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None: ...

    model = mlp(4, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    engine = Engine(model, optimizer, rules=[FromTheStart()], prescription=Prescription({"exploding": [Hasty()]}))
    moved = []
    for _ in range(3):
        before = model[0].weight.detach().clone()
        optimizer.zero_grad()
        engine.before_step(loss=backward(model))
        optimizer.step()
        moved.append(float((model[0].weight - before).norm()))
    assert min(moved) > 1e-3


@pytest.mark.parametrize("late", [False, True])
def test_the_loss_of_the_alerts_own_step_is_not_the_level_before_it(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: late)
    model = mlp(4, 2)
    engine = Engine(model, SGD(model.parameters(), lr=0.0), rules=["NonFinite"])
    buffer = torch.zeros(())
    for step in range(20):
        model.zero_grad()
        backward(model, math.nan if step == 5 else 1.0)
        buffer.fill_(1000.0 if step >= 5 else 1.0)  # the same memory each time, as in captured graphs
        engine.before_step(loss=buffer)
    engine.close()
    assert engine.record.loss.ceiling == 1.0
    assert engine.record.loss.now == 1000.0


@pytest.mark.usefixtures("accelerator")
def test_a_step_skipped_on_the_device_reports_norm_zero_whatever_else_clips() -> None:
    model = mlp(4, 2)
    optimizer = partial(torch.optim.AdamW, fused=True)(model.parameters())
    plan = {"exploding": [{"ClipValue": 0.01}], "nonfinite": ["SkipStep"]}
    engine = Engine(model, optimizer, rules=[FromTheStart(), "NonFinite"], prescription=plan)
    for step in range(5):
        optimizer.zero_grad()
        engine.before_step(loss=backward(model, math.nan if step == 4 else 1.0))
        optimizer.step()
    outlook = engine.settle()
    assert outlook is not None
    assert outlook.norm_clipped == 0.0


def test_losses_are_observed_a_few_times_only_for_an_optimizer_that_never_steps() -> None:
    model = mlp(4, 2)
    engine = Engine(model, SGD(model.parameters(), lr=0.1))
    for _ in range(20):
        engine.gauge.observe(backward(model))
    assert engine.gauge._observed == 8
