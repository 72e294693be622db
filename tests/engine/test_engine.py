"""The engine in a plain loop: what a user without Lightning writes, and what happens on an accelerator."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from experiments.bench.rules import FromTheStart
from grad_callbacks import ClipNorm, Engine, Prescription, Record, ReduceLR, SkipStep, StepResult
from tests.support.helpers import SGD, Backwards, mlp

STEPS = 30


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU count as a device that runs behind the host."""
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: True)


class HostRead(BaseException):
    """No Exception: what rules and remedies raise of those is caught by the engine."""


@contextmanager
def no_host_reads() -> Iterator[None]:
    """Fail where a number is read from a tensor, which on an accelerator would mean waiting for it."""

    def refuse(*_: Any) -> Any:
        raise HostRead("the host has read a number from the device")

    with pytest.MonkeyPatch.context() as patch:
        for reader in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "cpu"):
            patch.setattr(Tensor, reader, refuse)
        yield


def train(
    engine: Engine, steps: int = STEPS, factors: dict[int, float] | None = None, start: int = 0, **options: Any
) -> list[StepResult]:
    """A plain loop on the same batches each time; ``factors`` multiply the loss of some steps."""
    outlooks = []
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 4, generator=generator)
        loss = nn.functional.mse_loss(engine.model(inputs), inputs[:, :2]) * (factors or {}).get(step, 1.0)
        engine.optimizer.zero_grad()
        loss.backward()
        outlooks.append(engine.before_step(loss=loss, **options))
        engine.optimizer.step()
    return [outlook for outlook in outlooks if outlook is not None]


def guarded(make: Any = SGD, plan: Any = None, **options: Any) -> Engine:
    torch.manual_seed(0)
    model = mlp(4, 8, 8, 2)
    prescription = None if plan is None else Prescription(plan)
    return Engine(model, make(model.parameters(), **({"lr": 0.01} | options)), prescription=prescription)


def states(engine: Engine) -> list[Tensor]:
    moments = [v for s in engine.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return [t.detach().clone() for t in [*engine.model.parameters(), *moments]]


def test_a_plain_loop_gets_the_record_of_the_run() -> None:
    engine = guarded(plan={"nonfinite": [SkipStep()]})
    outlooks = train(engine, factors={9: math.nan})
    engine.close()
    record = engine.record
    assert [outlook.reading.step for outlook in outlooks] == list(range(STEPS))
    assert (record.verdict, record.outcome) == ("nonfinite", "repaired")
    assert [(made.step, made.remedy) for made in record.interventions] == [(9, "SkipStep")]
    assert len(record.history()) == 3 * STEPS
    assert record.report().startswith("# Gradients: nonfinite, repaired")


def test_the_loss_shows_the_order_of_the_layers() -> None:
    torch.manual_seed(0)
    model = Backwards()
    engine = Engine(model, SGD(model.parameters(), lr=0.1))
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    engine.before_step(loss=loss)
    assert list(engine.record.history()["layer"]) == ["first", "attention", "attention.out_proj", "last"]


def test_a_loss_that_is_told_now_and_then_is_not_lost_in_between() -> None:
    engine = guarded(plan="full")
    for step in range(60):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.mse_loss(engine.model(inputs), inputs[:, :2])
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss if step % 20 == 0 else None)
        engine.optimizer.step()
    assert not engine.record.alerts


def test_two_optimizers_share_a_record() -> None:
    record, model = Record(), mlp(4, 8, 2)
    engines = [Engine(model, SGD(model[i].parameters(), lr=0.1), record=record, index=i) for i in (0, 2)]
    model(torch.ones(1, 4)).sum().backward()
    for engine in engines:
        engine.before_step()
    assert list(record.history()["layer"]) == ["0", "2"]


def test_after_closing_the_optimizer_is_the_users_again() -> None:
    engine = guarded(plan={"exploding": [ReduceLR(0.1)]}, lr=0.01)
    engine.rules.insert(0, FromTheStart())
    train(engine, steps=3)
    engine.optimizer.register_step_pre_hook(lambda *_: rates.append(engine.optimizer.param_groups[0]["lr"]))
    rates: list[float] = []
    engine.optimizer.step()
    engine.close()
    engine.optimizer.step()
    assert rates == pytest.approx([0.001, 0.01]), "lowered while the engine is there, and only then"
    engine.optimizer._optimizer_step_pre_hooks.popitem()  # the test's own
    assert not engine.optimizer._optimizer_step_pre_hooks
    assert not engine.optimizer._optimizer_step_post_hooks


@pytest.mark.numerics
def test_a_line_search_is_read_once_a_step_and_never_clipped(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp(4, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    prescription = Prescription({"exploding": [ClipNorm(1e-6)]})
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        engine = Engine(model, optimizer, rules=[FromTheStart()], prescription=prescription)
    assert "line search of LBFGS" in caplog.text
    inputs = torch.randn(8, 4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2])
        loss.backward()
        engine.before_step(loss=loss)
        return loss

    losses = [float(optimizer.step(closure)) for _ in range(4)]
    assert sorted(set(engine.record.history()["step"])) == [0, 1, 2, 3]
    assert engine.record.interventions == []
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_loss_scaler_is_taken_into_account(fused: bool, unscaled: bool) -> None:
    torch.manual_seed(0)
    model = mlp(4, 8, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=fused)
    engine = Engine(model, optimizer, rules=[FromTheStart()], prescription=Prescription({"exploding": [ClipNorm(1e9)]}))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inputs = torch.randn(8, 4)
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2])
        scaler.scale(loss).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        outlook = engine.before_step(loss=loss, scaler=scaler)
        scaler.step(optimizer)
        scaler.update()
        expected = torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    nn.functional.mse_loss(model(inputs), inputs[:, :2]), list(model.parameters())
                )
            ]
        ).norm()
        assert outlook is not None
        assert outlook.reading.norm == pytest.approx(float(expected), rel=1e-5)


def test_an_overflow_is_left_to_the_loss_scaler() -> None:
    engine = guarded(plan={"nonfinite": [SkipStep()]})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        engine.optimizer.zero_grad()
        loss = engine.model(torch.ones(1, 4)).sum()
        (scaler.scale(loss) * math.inf).backward()
        engine.before_step(loss=loss, scaler=scaler)
        scaler.step(engine.optimizer)
        scaler.update()
    assert engine.record.verdict == "healthy"
    assert scaler.get_scale() == 128.0


# On an accelerator


def test_reads_of_the_host_are_noticed() -> None:
    engine = guarded(plan={"exploding": [ClipNorm(1e-6)]})
    engine.rules.insert(0, FromTheStart())
    train(engine, steps=1)
    with no_host_reads(), pytest.raises(HostRead, match="the host has read"):
        engine.before_step()


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize(
    ("make", "plan"),
    [
        (SGD, None),
        (torch.optim.AdamW, None),
        (SGD, {"exploding": ["ClipNorm", "ReduceLR"]}),
        (torch.optim.RMSprop, {"exploding": [ClipNorm(0.1), {"ClipValue": 0.01}]}),
        (lambda p, lr: torch.optim.AdamW(p, lr, fused=True), {"exploding": [ClipNorm(0.1)], "nonfinite": [SkipStep()]}),
        (lambda p, lr: torch.optim.SGD(p, lr, fused=True), {"exploding": [{"ClipValue": 0.01}]}),
        (SGD, {"exploding": ["AdaptiveClip"]}),
        (SGD, {"exploding": [{"AdaptiveClip": "percentile"}]}),
        (torch.optim.AdamW, {"exploding": ["AGC"]}),
        (SGD, {"exploding": ["FloorNorm"]}),
    ],
)
def test_the_host_reads_nothing_in_a_step(make: Any, plan: Any) -> None:
    engine = guarded(make, plan)
    engine.rules.insert(0, FromTheStart())
    for step in range(12):
        loss = engine.model(torch.ones(3, 4)).square().mean() * (math.nan if step == 8 else 1.0)
        engine.optimizer.zero_grad()
        loss.backward()
        with no_host_reads():
            engine.before_step(loss=loss)
        engine.optimizer.step()
    assert engine.measured == 12


@pytest.mark.parametrize("make", [SGD, torch.optim.AdamW])
def test_late_judgement_comes_to_the_same_as_early(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = {15: 1e4, 16: 1e4, 22: math.nan}
    early = guarded(make)
    early_outlooks = train(early, factors=factors)
    early.close()
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: True)
    late = guarded(make)
    late_outlooks = train(late, factors=factors)
    assert [outlook.reading.step for outlook in late_outlooks] == list(range(STEPS - 1)), "one step later"
    assert len(early_outlooks) == STEPS
    late.close()
    assert {alert.kind for alert in early.record.alerts} >= {"nonfinite"}
    assert late.record.alerts == early.record.alerts
    pd.testing.assert_frame_equal(late.record.history(), early.record.history())


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("fused", [False, True])
def test_clipping_acts_in_the_step_it_is_due(fused: bool) -> None:
    engine = guarded(torch.optim.SGD, {"exploding": [ClipNorm(0.05)]}, lr=1.0, fused=fused)
    engine.rules.insert(0, FromTheStart())
    train(engine, steps=3)
    before = [p.detach().clone() for p in engine.model.parameters()]
    train(engine, steps=4, start=3, factors={3: 100.0})
    moved = torch.cat([(p - b).flatten() for p, b in zip(engine.model.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(0.05, rel=1e-4)
    outlook = engine.settle()
    assert outlook is not None
    assert outlook.norm_clipped == pytest.approx(0.05, rel=1e-6)
    assert not hasattr(engine.optimizer, "grad_scale")
    assert engine.record.interventions[0].detail["steps"] == 3, "the steps that were clipped, the alert's own not"


@pytest.mark.usefixtures("accelerator")
def test_the_first_non_finite_step_is_skipped_on_the_device() -> None:
    engine = guarded(torch.optim.AdamW, {"nonfinite": [SkipStep()]}, fused=True, weight_decay=0.1)
    train(engine, steps=5)
    before = states(engine)
    train(engine, steps=6, start=5, factors={5: math.nan})
    for now, then in zip(states(engine), before, strict=True):
        assert torch.equal(now, then)
    assert engine.record.interventions == [], "nobody knows yet"
    train(engine, steps=9, start=6)
    [made] = engine.record.interventions
    assert (made.step, made.remedy, made.detail["steps"]) == (5, "SkipStep", 1)
    assert not hasattr(engine.optimizer, "found_inf")


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize(
    ("make", "plan", "waits"),
    [
        (torch.optim.AdamW, None, False),
        (torch.optim.AdamW, {"exploding": ["ClipNorm"]}, False),
        (torch.optim.AdamW, {"nonfinite": ["SkipStep"]}, True),
        (lambda p, lr: torch.optim.AdamW(p, lr, fused=True), {"nonfinite": ["SkipStep"]}, False),
        (lambda p, lr: torch.optim.AdamW(p, lr, fused=True), {"exploding": ["SkipStep"]}, True),
    ],
)
def test_the_host_waits_only_for_what_only_it_can_do(make: Any, plan: Any, waits: bool) -> None:
    outlooks = train(guarded(make, plan), steps=3)
    assert [outlook.reading.step for outlook in outlooks] == ([0, 1, 2] if waits else [0, 1])


@pytest.mark.usefixtures("accelerator")
def test_a_state_saved_in_between_goes_on_as_if_nothing_had_happened() -> None:
    whole, first = (guarded(plan={"exploding": [ClipNorm(0.1)]}) for _ in range(2))
    for engine in (whole, first):
        engine.rules.insert(0, FromTheStart())
    train(whole, factors={20: 1e4})
    train(first, steps=11)
    second = guarded(plan={"exploding": [ClipNorm(0.1)]})
    second.rules.insert(0, FromTheStart())
    second.model.load_state_dict(first.model.state_dict())
    state = first.state_dict()
    second.record.load_state_dict(first.record.state_dict())
    second.load_state_dict(state)
    train(second, start=11, factors={20: 1e4})
    for engine in (whole, second):
        engine.close()
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.record.alerts == second.record.alerts
    pd.testing.assert_frame_equal(whole.record.history(), second.record.history())
