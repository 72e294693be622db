"""The five lines and the report, on records made by hand."""

from __future__ import annotations

import math

import pandas as pd
import torch

from grad_callbacks import Alert, Intervention
from grad_callbacks.reporting.loss_recovery import LossRecovery
from grad_callbacks.reporting.report import write_report
from grad_callbacks.reporting.summary import summarise

SPIKE = Alert("exploding", "warning", 5, ("b",), "norm 20 is 6 times the usual", {}, "bad batch", "clip by norm")
LASTING = Alert(
    "exploding",
    "critical",
    6,
    ("a", "b"),
    "norm 51 is 15 times the usual",
    {},
    "learning rate too high",
    "lower it; warm up.",
)
CLIP = Intervention(5, "ClipNorm", "exploding", {"max_norm": 1.7, "norm": 20.0, "steps": 4})
LOWER = [
    Intervention(step, "ReduceLR", "exploding", {"lr_scale": scale, "steps": 10})
    for step, scale in ((6, 0.3), (9, 0.09))
]


def history(steps: int = 20, layers: int = 3) -> pd.DataFrame:
    rows = [
        (step, "abcdefghij"[i % 10] * (1 + i // 10), i, 3.0, 1.0, 1.0, math.nan)
        for step in range(steps)
        for i in range(layers)
    ]
    return pd.DataFrame(rows, columns=["step", "layer", "depth", "norm", "rms", "weight_norm", "update_ratio"])


def loss(before: float, now: float) -> LossRecovery:
    track = LossRecovery()
    track.feed(torch.tensor(before))
    track.mark()
    for _ in range(20):
        track.feed(torch.tensor(now))
    return track


def test_a_repaired_run_in_five_lines() -> None:
    lines = dict(summarise("repaired", [SPIKE, LASTING], [CLIP, *LOWER], history(), [], loss(2.0, 0.5)))
    assert lines == {
        "Wrong": "Exploding gradients from step 5 on in 2 of 3 layers (a, b). 2 alerts, 20 steps and 3 layers watched.",
        "Why": "Learning rate too high. Seen: norm 51 is 15 times the usual.",
        "Done": "ClipNorm (max_norm 1.7) from step 5, acted in 4 steps; "
        "ReduceLR (lr_scale 0.09) from step 6, 2 times, acted in 20 steps.",
        "Helped": "Yes. Gradients are calm at the end. Training loss 2 before the first alert, 0.5 at the end.",
        "Next time": "Lower it; warm up.",
    }


def test_a_run_that_goes_on_under_clipping_says_so() -> None:
    lines = dict(summarise("repaired", [LASTING], [CLIP], history(), ["exploding"], loss(2.0, 0.5)))
    assert lines["Helped"].startswith("Yes. Gradients are still large, and clipping keeps that from the weights.")


def test_what_did_not_help_says_so() -> None:
    still = dict(summarise("unrepaired", [LASTING], [CLIP], history(), ["exploding"], loss(2.0, 9.0)))
    assert still["Helped"].startswith("No. Gradients are still exploding at the end.")
    assert still["Do now"] == "Lower it; warm up."
    worse = dict(summarise("unrepaired", [LASTING], [CLIP], history(), [], loss(2.0, 9.0)))
    assert worse["Helped"].startswith("Not enough. Gradients are calm at the end, but the loss has not come back.")
    watched = dict(summarise("unrepaired", [LASTING], [], history(), ["exploding"], LossRecovery()))
    assert watched["Done"] == "Nothing was changed."
    assert watched["Helped"] == "Gradients are still exploding at the end."


def test_a_healthy_run_needs_three_lines() -> None:
    lines = dict(summarise("healthy", [], [], history(), [], LossRecovery()))
    assert lines["Wrong"] == "Nothing. No alert was raised."
    assert lines["Seen"] == "20 steps, 3 layers; global gradient norm 5.2 at step 0, 5.2 at step 19."


def test_many_layers_are_counted_and_one_is_named() -> None:
    many = Alert("vanishing", "critical", 1, tuple("abcdefgh"), "", {}, "", "")
    lines = dict(summarise("unrepaired", [many], [], history(layers=12), ["vanishing"], LossRecovery()))
    assert "at step 1 in 8 of 12 layers (a, b, c and 5 more)" in lines["Wrong"]
    assert lines["Why"].startswith("Unknown.")
    one = Alert("vanishing", "critical", 1, ("head",), "", {}, "", "")
    assert "in head. One alert" in dict(summarise("unrepaired", [one], [], history(), [], LossRecovery()))["Wrong"]


def test_the_profile_comes_before_the_details() -> None:
    report = write_report("exploding", "repaired", [SPIKE, LASTING], [CLIP], history(), [], loss(2.0, 0.5))
    order = [
        report.index(part) for part in ("# Gradients", "- **Wrong**", "## Profile", "## Alerts", "## Interventions")
    ]
    assert order == sorted(order)
    assert ".." not in report, "advice that ends in a full stop does not get a second one"


def test_the_longest_report_keeps_its_summary_and_profile_within_the_limit() -> None:
    from grad_callbacks.tracking.run_page.run_report import NOTE_LIMIT, note_of

    wordy = Alert("exploding", "critical", 5, tuple("abcdefghij"), "seen " * 80, {}, "cause " * 10, "advice " * 80)
    report = write_report("exploding", "repaired", [wordy] * 50, [CLIP] * 50, history(layers=100), [], loss(2.0, 0.5))
    note = note_of(report)
    assert len(report) > NOTE_LIMIT >= len(note)
    for part in ("**Helped**", "## Profile", "(24 of 100 layers)"):
        assert part in note
    assert note.endswith("\n…")


def test_a_second_kind_is_told_and_what_is_left_is_what_to_mend() -> None:
    nan = Alert("nonfinite", "critical", 9, ("b",), "NaN in b", {}, "undefined operation", "add 1e-6 under the root")
    lines = dict(summarise("unrepaired", [SPIKE, LASTING, nan], [CLIP], history(), ["nonfinite"], loss(2.0, math.nan)))
    assert "Then nonfinite from step 9 on. 3 alerts" in lines["Wrong"]
    assert lines["Why"].startswith("Learning rate too high.")
    assert lines["Do now"] == "Add 1e-6 under the root."
