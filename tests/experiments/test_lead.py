"""Lead and delay of hand-made runs: the step at which a loss is lost, and how long before it an alert came."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.corpus import Scenario, lost_at
from experiments.scoreboard.detectors import Alarm
from experiments.scoreboard.judging import Judged
from experiments.scoreboard.lead import lead_picture, lead_table, measured
from experiments.scoreboard.scoring import Score, score

FALLING = np.linspace(2.0, 0.5, 60)
SERIES = {  # losses, and the step of the first alert
    "jumps": (np.concatenate([FALLING, np.full(40, 1.9)]), 50),
    "half way back": (np.concatenate([FALLING, np.full(40, 1.2)]), 50),
    "undefined": (np.concatenate([FALLING, np.full(40, np.nan)]), 63),
    "comes back": (np.concatenate([FALLING, np.full(30, 3.0), np.full(30, 0.6)]), 61),
    "never learned": (np.full(100, 2.0), 5),
    "says nothing": (np.concatenate([FALLING[:30], np.full(70, 1.9)]), 50),
}


def judged_by_hand(kind: str = "exploding") -> Score:
    scenarios = {name: Scenario(name, (kind,), (), "good", onset=40) for name in SERIES}
    runs = []
    for name, (losses, alert) in SERIES.items():
        lost = lost_at(np.arange(len(losses)), losses)
        runs.append(Judged(name, 0, 0.0, len(losses), lost, {"ours": [Alarm(alert, (kind,))]}))
    return score("ours", runs, scenarios, {(name, 0): "failing" for name in SERIES})


def test_the_lead_is_counted_to_where_the_loss_is_lost_for_good() -> None:
    leads = {verdict.scenario: verdict.lead for verdict in judged_by_hand().verdicts}
    assert leads["jumps"] == 10, "the loss is at 1.9 from step 60 on"
    assert math.isnan(leads["half way back"]), "1.2 is less than half of the way from 0.5 to 2: not lost"
    assert leads["undefined"] == -3, "it was NaN before the alert came"
    assert math.isnan(leads["comes back"])
    assert math.isnan(leads["never learned"]), "there was nothing to lose"
    assert math.isnan(leads["says nothing"]), "it was lost at step 30, before the run began to go wrong at 40"


def test_medians_are_of_each_kind() -> None:
    one = judged_by_hand()
    metrics = one.metrics()
    assert metrics["median_lead_exploding"] == metrics["median_lead"] == 3.5, "of 10 and -3"
    assert metrics["median_delay_exploding"] == 10, "of 10, 10, 23, 21, 0 and 10"
    assert math.isnan(metrics["median_lead_vanishing"])
    assert measured(one, "exploding", "lead") == [10, -3]
    assert measured(one, "vanishing", "delay") == []


def test_the_table_shows_lead_and_delay_of_each_kind() -> None:
    console = Console(width=100, record=True, quiet=False)
    console.print(lead_table([judged_by_hand("nonfinite")]))
    row = console.export_text().splitlines()[-1].split()
    assert row == ["ours", "0", "–", "–", "0", "–", "–", "2", "4", "10"]


def test_the_picture_is_made_of_any_scores(tmp_path: Path) -> None:
    lead_picture([judged_by_hand(), Score("silent", [])], "made").savefig(tmp_path / "lead.png")
    assert (tmp_path / "lead.png").stat().st_size > 10_000
