"""Thresholds that follow the run's own norms, and that no spike moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grad_callbacks import AdaptiveClip
from grad_callbacks.events import Evidence
from tests.support.helpers import mlp, pending

numbers = st.lists(st.floats(0.5, 2.0), min_size=30, max_size=40)


def with_norm(norm: float) -> nn.Sequential:
    model = mlp(3, 4, 2)
    entries = sum(p.numel() for p in model.parameters())
    for p in model.parameters():
        p.grad = torch.full_like(p, norm / math.sqrt(entries))
    return model


def shown(remedy: AdaptiveClip, norms: Sequence[float]) -> list[float]:
    """The norms after ``remedy``, shown ``norms`` in turn."""
    after = []
    for norm in norms:
        step = pending(with_norm(norm))
        remedy.act(step)
        after.append(step.norm)
    return after


def engaged(norms: Sequence[float], reference: float = 1.0, **options: Any) -> AdaptiveClip:
    remedy = AdaptiveClip(**options)
    shown(remedy, norms)
    remedy.engage(pending(with_norm(1.0)), Evidence({"reference": reference}))
    return remedy


def test_the_z_score_is_that_of_zclip() -> None:
    norms = [1.0, 1.2, 0.8, 1.1, 0.9] * 5
    mean = sum(norms) / 25
    deviation = math.sqrt(sum((norm - mean) ** 2 for norm in norms) / 25)
    score = (3.0 - mean) / deviation
    assert shown(engaged(norms), [3.0]) == [pytest.approx(mean + 2.5 * deviation / (score / 2.5), rel=1e-4)]


@settings(max_examples=10, deadline=None)
@given(norms=numbers, poison=st.lists(st.sampled_from([math.nan, math.inf, 0.0, 1e3, 1e30]), max_size=15))
def test_no_spike_moves_the_threshold(norms: list[float], poison: list[float]) -> None:
    clean, poisoned = engaged(norms), engaged(norms)
    shown(poisoned, poison)
    assert shown(poisoned, [100.0]) == shown(clean, [100.0])
    assert poisoned.state_dict() == clean.state_dict()


def test_a_spike_among_the_first_norms_is_not_taken_in() -> None:
    norms = [1.0, 1.2, 0.8, 1.1, 0.9] * 6
    assert shown(engaged([1.0, 1e4, math.nan, *norms]), [50.0])[0] < 1.5


@settings(max_examples=10, deadline=None)
@given(norms=numbers, norm=st.floats(0.1, 1e4), factor=st.sampled_from([1e-5, 1e-2, 1e3]))
def test_it_scales_with_the_gradients(norms: list[float], norm: float, factor: float) -> None:
    [plain] = shown(engaged(norms), [norm])
    scaled = engaged([factor * norm for norm in norms], reference=factor)
    assert shown(scaled, [factor * norm]) == [pytest.approx(factor * plain, rel=1e-4)]


@settings(max_examples=10, deadline=None)
@given(norms=numbers, norm=st.floats(3.0, 1e4))
def test_clipping_twice_changes_nothing_and_keeps_the_direction(norms: list[float], norm: float) -> None:
    remedy, model = engaged(norms), mlp(3, 4, 2)
    for p in model.parameters():
        p.grad = norm * torch.randn_like(p)
    before = [p.grad.clone() for p in model.parameters()]
    step = pending(model)
    assert remedy.act(step)
    once = step.norm
    for p, gradient in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, gradient * (once / step.reading.norm))
    again = pending(model)
    remedy.act(again)
    assert again.norm == pytest.approx(once, rel=1e-6)


def test_the_alert_tells_the_usual_norm_where_none_is_known() -> None:
    assert shown(engaged([], reference=2.0), [1.0, 50.0, math.nan]) == [
        pytest.approx(1.0),
        pytest.approx(2.0, rel=0.05),
        pytest.approx(math.nan, nan_ok=True),
    ]


def test_nothing_is_clipped_before_an_alert_and_it_is_switched_on_once() -> None:
    remedy = AdaptiveClip()
    assert shown(remedy, [1.0] * 30 + [50.0])[-1] == pytest.approx(50.0)
    assert remedy.engage(pending(with_norm(math.nan)), Evidence({})) is None, "no factor mends a NaN"
    assert remedy.engage(pending(with_norm(9.0)), Evidence({})) == {
        "reference": pytest.approx(9.0),
        "norm": pytest.approx(9.0),
    }
    assert remedy.engage(pending(with_norm(9.0)), Evidence({})) is None


@pytest.mark.parametrize("known", [0, 3, 40])
def test_it_goes_on_from_a_checkpoint(known: int) -> None:
    norms = [1.0 + 0.1 * math.sin(i) for i in range(60)]
    whole = engaged(norms[:known])
    resumed = AdaptiveClip()
    resumed.load_state_dict(whole.state_dict())
    assert resumed.state_dict() == whole.state_dict()
    assert shown(resumed, [*norms[known:], 9.0]) == shown(whole, [*norms[known:], 9.0])


@pytest.mark.parametrize(
    ("argument", "value"),
    [("z", 0), ("warmup", 0)],
)
def test_a_wrong_argument_is_named(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{argument} must .*{value!r}"):
        AdaptiveClip(**{argument: value})
