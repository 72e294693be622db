"""The engine on an accelerator, which runs behind the host."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from experiments.bench.rules import FromTheStart
from grad_callbacks import ClipNorm, Engine, SkipStep
from tests.support.helpers import SGD
from tests.support.plain_loop import STEPS, guarded, train


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


def states(engine: Engine) -> list[Tensor]:
    moments = [v for s in engine.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return [t.detach().clone() for t in [*engine.model.parameters(), *moments]]


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
        (torch.optim.AdamW, {"exploding": ["AGC"]}),
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
