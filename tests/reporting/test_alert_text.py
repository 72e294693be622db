"""Alerts, interventions and trials in words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from grad_callbacks import Alert, Intervention, TrialResult
from grad_callbacks.reporting.alert_text import (
    LIMITS,
    alert_lines,
    alert_parts,
    detail_text,
    intervention_line,
    kind_text,
    trial_line,
)

ALERT = Alert(
    "exploding",
    "critical",
    16,
    tuple(f"layer{place}" for place in range(15)),
    "global norm 20, 12 times the usual 1.7; first clause that fits; " + "long " * 20,
    {},
    "learning rate too high.",
    "smaller learning rate: lr=0.1 -> 0.01 in SGD; clipping by norm: `ClipNorm(1.7)`",
)


def test_three_short_lines() -> None:
    lines = alert_lines(ALERT)
    assert lines == [
        "step 16: exploding gradients (critical): global norm 20, 12 times the usual 1.7; first clause that fits",
        "likely cause: learning rate too high (seen in layer0, layer1, layer2 … and 12 more)",
        "what to change: smaller learning rate: lr=0.1 -> 0.01 in SGD",
    ]
    assert max(map(len, lines)) <= LIMITS.line


def test_a_first_clause_is_whole_however_long() -> None:
    first, *_ = alert_lines(replace(ALERT, message="a" * 200 + "; b"))
    assert first.endswith("a" * 200)


def test_the_report_has_all_clauses_and_all_advice() -> None:
    seen, cause, change = alert_parts(ALERT, names=6)
    assert seen.startswith("global norm 20, 12 times the usual 1.7; first clause that fits; long")
    assert cause.endswith("(seen in layer0, layer1, layer2, layer3, layer4, layer5 … and 9 more)")
    assert change.endswith("in SGD; clipping by norm: `ClipNorm(1.7)`")


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"cause": "", "layers": ()}, ["step 3: плато (warning): не учится", "what to change: x"]),
        ({"advice": "", "cause": ""}, ["step 3: плато (warning): не учится", "seen in слой"]),
        ({"message": "", "cause": "", "advice": "", "layers": ()}, ["step 3: плато (warning)"]),
        ({"message": "two\n  lines."}, ["step 3: плато (warning): two lines", "likely cause: why (seen in слой)"]),
    ],
)
def test_a_kind_of_ones_own_in_any_script_with_what_is_known_of_it(changes: dict[str, Any], lines: list[str]) -> None:
    alert = Alert("плато", "warning", 3, ("слой",), "не учится", {}, "why", "x")
    assert alert_lines(replace(alert, **changes))[: len(lines)] == lines


@pytest.mark.parametrize(
    ("kind", "text"),
    [("vanishing", "vanishing gradients"), ("nonfinite", "nonfinite gradients"), ("plateau", "plateau")],
)
def test_only_the_built_in_kinds_are_of_gradients(kind: str, text: str) -> None:
    assert kind_text(kind) == text


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({"max_norm": 1.440761094361056, "norm": 19973.18, "steps": 1}, "max_norm 1.44, norm 2e+04"),
        ({"lr": [0.0123456, 0.1, 0.2, 0.3, 0.4]}, "lr 0.0123, 0.1, 0.2 … and 2 more"),
        ({"modules": "a, b, c, d, e"}, "modules a, b, c … and 2 more"),
        ({"measured": False, "gain": math.nan, "at": None, "trial": "losses: none 1"}, "measured False, gain –, at –"),
        ({"steps": 1}, ""),
    ],
)
def test_a_detail_has_rounded_numbers(detail: dict[str, Any], text: str) -> None:
    made = Intervention(15, "ClipNorm", "exploding", detail)
    assert detail_text(made) == text
    assert intervention_line(made) == (
        "step 15: ClipNorm switched on against exploding gradients" + (f" ({text})" if text else "")
    )


@pytest.mark.parametrize(
    ("winner", "text"),
    [
        ("ClipNorm", "ClipNorm did best; final losses: none 1.235, ClipNorm not finite"),
        ("none", "no remedy did best; final losses: none 1.235, ClipNorm not finite"),
        ("", "no remedy gave a finite loss; final losses: none 1.235, ClipNorm not finite"),
    ],
)
def test_a_trial_is_one_sentence(winner: str, text: str) -> None:
    result = TrialResult(50, "exploding", winner, {"none": 1.23456, "ClipNorm": math.inf}, {})
    assert trial_line(result) == f"step 50: in a trial against exploding gradients {text}"
