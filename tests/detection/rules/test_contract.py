"""What every rule promises."""

from __future__ import annotations

import io
import math
import random

import pytest
import torch

from grad_callbacks.detection.rules import RULES, Rule
from tests.support.helpers import reading


def readings(count: int = 200) -> list:
    draw = random.Random(0)
    told = []
    for step in range(count):
        norms = [10 ** draw.uniform(-6, 1) for _ in range(4)]
        if draw.random() < 0.05:
            norms[2] = math.nan
        if draw.random() < 0.1:
            norms = [1000 * norm for norm in norms]
        event = {"displacement": draw.uniform(0, 1), "motion": [1e-6] * 4, "overflow": draw.random() < 0.02}
        told.append(reading(norms, step=step, **event))
    return told


@pytest.mark.parametrize("name", RULES)
def test_it_follows_the_protocol_and_starts_calm(name: str) -> None:
    rule = RULES[name]()
    assert isinstance(rule, Rule)
    assert not rule.active


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("cut", [0, 7, 100])
def test_it_resumes_from_a_checkpoint_file_as_if_nothing_had_happened(name: str, cut: int) -> None:
    story = readings()
    whole, first, second = RULES[name](), RULES[name](), RULES[name]()
    expected = [whole.judge(entry) for entry in story]
    told = [first.judge(entry) for entry in story[:cut]]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    told += [second.judge(entry) for entry in story[cut:]]
    assert told == expected
    assert second.active == whole.active
