"""What a rule promises by its leeway, on made-up runs."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from grad_callbacks.detection.rules import RULES, Rule
from grad_callbacks.detection.rules.leeway import LEEWAY, Leeway
from grad_callbacks.measurement import Batch, QuietBlock, Reading, StepPlan
from tests.support.helpers import reading

READINGS = 250


def run(seed: int) -> list[Reading]:
    """Readings of a run of six layers: noisy, with spikes, losses that jump, and profiles that decay for a while."""
    draw = random.Random(seed)
    is_adaptive, knows_loss = draw.random() < 0.6, draw.random() < 0.8
    noise, spikes, decay = draw.choice([0.05, 0.3, 1.0]), draw.choice([0.0, 0.01, 0.05]), draw.choice([1.0, 0.01])
    fall, bad = draw.choice([0.0, 0.003, 0.02]), draw.choice([0.0, 0.01, 0.1])
    told, moved = [], 0.01
    for step in range(READINGS):
        level = math.exp(draw.gauss(0.0, noise)) * (draw.choice([20, 1000]) if draw.random() < spikes else 1.0)
        shrinks = decay if step % 100 > 50 else 1.0
        profile = [level * shrinks ** (5 - layer) * math.exp(draw.gauss(0.0, noise / 3)) for layer in range(6)]
        loss = math.exp(-fall * step) * math.exp(draw.gauss(0.0, noise / 2)) * (5.0 if draw.random() < bad else 1.0)
        if step % 25 == 0:
            moved = 0.01 * math.exp(draw.gauss(0.0, 0.3)) * (20 if draw.random() < 0.1 else 1)
        told.append(
            reading(
                profile,
                step=step,
                loss=loss if knows_loss else math.nan,
                has_loss=knows_loss,
                moved=moved,
                motion=np.full(6, moved if decay == 1 else 1e-9),
                weight_norms=np.full(6, 4.0),
                displacement=math.nan if is_adaptive else 0.1 * level,
                squares_decay=0.95 if is_adaptive else math.nan,
            )
        )
    return told


def block(readings: list[Reading]) -> QuietBlock:
    plan = StepPlan((0.1,), None if math.isnan(readings[0].displacement) else (0.1,), (0.0,))
    kept: Any = [replace(each) for each in readings]
    return QuietBlock(kept, [plan] * len(kept), Batch(), 0)


def plain(value: Any) -> Any:
    """A state, so that NaN equals NaN."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else repr(value)


def judged(rule: Rule, story: list[Reading]) -> tuple[list[Any], int]:
    """Judge a run, readings within the leeway together; return the alerts, and how many those were."""
    alone = copy.deepcopy(rule)  # sees each reading in its turn
    alerts, kept, together, leeway = [], [], 0, Leeway()
    for each in story:
        expected = alone.judge(each)
        is_high = each.loss > leeway.loss
        if len(kept) < leeway.readings and each.norm <= leeway.norm and not (is_high and leeway.spare == 0):
            leeway = leeway._replace(spare=leeway.spare - is_high)
            assert expected is None
            assert not alone.active
            kept.append(each)
            together += 1
            if len(kept) < leeway.readings:
                continue
            rule.take_in(block(kept))
        else:
            if kept:
                rule.take_in(block(kept))
            told = rule.judge(each)
            assert told == expected
            alerts += [] if told is None else [told]
        assert plain(rule.state_dict()) == plain(alone.state_dict())
        kept, leeway = [], Leeway() if rule.active or rule.near else rule.leeway()
    return alerts, together


@pytest.mark.parametrize("name", RULES)
def test_within_its_leeway_a_rule_is_silent_and_misses_nothing(name: str) -> None:
    found = [judged(RULES[name](), run(seed)) for seed in range(12)]
    assert sum(together for _, together in found) > READINGS
    if name in ("Exploding", "Vanishing"):  # of the others these runs have little
        assert any(alerts for alerts, _ in found)


def test_two_promises_hold_together() -> None:
    one, other = Leeway(5, 2.0, 7.0, 2), Leeway(9, 1.0)
    assert one.and_of(other) == other.and_of(one) == Leeway(5, 1.0, 7.0, 2)
    assert one.and_of(Leeway(6, 3.0, 8.0, 1)) == Leeway(5, 2.0, 7.0, 1)
    assert one.and_of(Leeway()).readings == 0


def test_no_block_is_longer_than_a_promise_about_norms() -> None:
    rule = RULES["Outlier"]()
    for each in run(0)[:60]:
        rule.judge(each)
    assert rule.leeway().readings in (LEEWAY.most, LEEWAY.any)
