"""The run's page: what it holds, and what a browser makes of it."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from grad_callbacks import Alert, Intervention, events
from grad_callbacks.events import AlertKind
from grad_callbacks.measurement.histograms import HISTOGRAM, Histogram
from grad_callbacks.reporting.step_series import COLUMNS
from grad_callbacks.tracking.comparison.compare import COLUMNS as RUN_COLUMNS
from grad_callbacks.tracking.comparison.picture import comparison_picture
from grad_callbacks.tracking.comparison.report import comparison_page
from grad_callbacks.tracking.run_page.grid import grid_of
from grad_callbacks.tracking.run_page.page import MAX_POINTS, run_page
from tests.support.browser import needs_browser, opened, text_of

ALERT = Alert("exploding", "critical", 30, ("a", "b"), "norm 51 is 15 times", {"ratio": 15.0}, "bad batch", "clip")
CLIPPED = Intervention(30, "ClipNorm", "exploding", {"max_norm": 1.0, "steps": 3})
SUMMARY = [("Wrong", "Exploding gradients at step 30."), ("Done", "ClipNorm.")]


def history(steps: int = 60, layers: tuple[str, ...] = ("a", "b", "c"), norm: float = 1.0) -> pd.DataFrame:
    rows = [
        (step, layer, depth, norm, norm / 2, 3.0, math.nan)
        for step in range(steps)
        for depth, layer in enumerate(layers)
    ]
    return pd.DataFrame(rows, columns=["step", "layer", "depth", "norm", "rms", "weight_norm", "update_ratio"])


def steps(count: int = 60) -> pd.DataFrame:
    rows = [(step, 0, 100.0 if step == 30 else 1.0, 1.0, 0.1, 2.0 - step / count) for step in range(count)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def page(**parts: Any) -> str:
    histogram = Histogram(25, ("a", "b"), np.full((2, HISTOGRAM.bins), 1 / HISTOGRAM.bins))
    given: dict[str, Any] = {
        "name": "high_lr/full",
        "verdict": "exploding",
        "outcome": "repaired",
        "summary": SUMMARY,
        "history": history(),
        "steps": steps(),
        "alerts": [ALERT],
        "interventions": [CLIPPED],
        "histograms": [histogram],
        "environment": {"torch": "2.13"},
    }
    return run_page(**(given | parts))


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', html)
    assert found is not None
    return json.loads(found.group(1))  # type: ignore[no-any-return]


def test_nothing_is_fetched() -> None:
    for html in (page(), comparison_page(compared())):
        addresses = set(re.findall(r"https?://[^\s\"'`]+", html))
        assert addresses == {"http://www.w3.org/2000/svg"}, "a name, never fetched"
        assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", html)
        assert "@import" not in html


def test_no_text_ends_the_script() -> None:
    nasty = "</script><img src=x onerror=alert(1)>"
    html = page(name=nasty, history=history(layers=(nasty, "b")))
    assert nasty not in html
    assert data_of(html)["name"] == nasty


def test_an_alert_of_a_kind_that_no_rule_here_declares_is_neutral() -> None:
    data = data_of(page(verdict="plateau", alerts=[replace(ALERT, kind="plateau"), ALERT]))
    assert data["kinds"] == [["exploding", "#d1603d"], ["plateau", "#6b7280"]]
    assert [row["kind"] for row in data["alerts"]] == ["plateau", "exploding"]


def test_a_kind_is_shown_in_the_colour_and_order_that_its_rule_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**events._KINDS, "plateau": AlertKind("plateau", order=1, colour="#AA5500")}
    monkeypatch.setattr(events, "_KINDS", known)
    data = data_of(page(alerts=[ALERT, replace(ALERT, kind="plateau"), replace(ALERT, kind="vanishing")]))
    assert data["kinds"][0][0] == "plateau"
    assert dict(data["kinds"]) == {"plateau": "#aa5500", "exploding": "#d1603d", "vanishing": "#6d5a9c"}


@pytest.mark.parametrize("colour", ["red", "#fff", "#12345g", "#123456;background:url(//evil)", "", None])
def test_only_a_colour_gets_into_a_page(colour: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_KINDS", {"plateau": AlertKind("plateau", colour=colour)})
    assert data_of(page(alerts=[replace(ALERT, kind="plateau")], interventions=[]))["kinds"] == [["plateau", "#6b7280"]]


def test_a_comparison_shows_kinds_and_outcomes_that_are_not_known_here() -> None:
    table = compared().assign(verdict=["exploding", "plateau", "healthy", ""] * 3, outcome="not measured")
    assert data_of(comparison_page(table))["kinds"] == [["exploding", "#d1603d"], ["plateau", "#6b7280"]]
    figure = comparison_picture(table.assign(remedies="none"))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["not measured"]


def test_secrets_stay_out() -> None:
    alert = Alert("nonfinite", "critical", 3, (), "read from https://me:SECRET@host/x", {}, "api_key=SECRET", "")
    html = page(alerts=[alert], summary=[("Why", "token=SECRET")], environment={"command": "x.py password=SECRET"})
    assert "SECRET" not in html


def test_a_huge_run_makes_no_huge_page() -> None:
    layers, count = tuple(f"model.encoder.layers.{i}.attention.projection" for i in range(400)), 1000
    frame = pd.DataFrame(
        {
            "step": np.repeat(np.arange(count), len(layers)) * 100,
            "layer": np.tile(layers, count),
            "depth": np.tile(np.arange(len(layers)), count),
            **{
                name: np.random.default_rng(0).lognormal(size=400_000)
                for name in ("norm", "rms", "weight_norm", "update_ratio")
            },
        }
    )
    html = page(history=frame, steps=steps(20_000))
    assert len(html) < 3_000_000
    assert len(data_of(html)["steps"]["step"]) == MAX_POINTS
    assert max(data_of(html)["steps"]["norm"]) == 100, "a spike survives"


def test_cells_distinguish_zero_non_finite_and_unmeasured() -> None:
    frame = history(4, ("a", "b"))
    frame.loc[(frame["step"] == 1) & (frame["layer"] == "a"), "norm"] = 0.0
    frame.loc[(frame["step"] == 2) & (frame["layer"] == "a"), "norm"] = math.nan
    frame = frame[(frame["step"] != 3) | (frame["layer"] != "a")]
    grid = data_of(page(history=frame))["grids"]["norm"]
    cells = np.frombuffer(base64.b64decode(grid["cells"]), dtype="<i2").reshape(2, 4)
    assert cells.tolist() == [[0, -32767, 32767, -32768], [0, 0, 0, 0]]


@pytest.mark.parametrize("steps", [1, 2, 599, 601, 5000])
def test_steps_are_joined_into_few_columns(steps: int) -> None:
    grid = grid_of(history(steps), "norm")
    assert grid.log10.shape[1] <= 600
    assert grid.edges[0] == -0.5
    assert grid.edges[-1] >= steps - 0.5
    assert np.isfinite(grid.log10).all()


@needs_browser
def test_a_browser_draws_the_run(tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(page())
    html = opened(file, tmp_path / "profile")
    text = text_of(html)
    assert 'data-drawn="yes"' in html, "the script ran to its end"
    for expected in (
        "exploding",
        "repaired",
        "high_lr/full",
        "Wrong Exploding gradients at step 30.",
        "Layer by step",
        "Gradient norm, before and after clipping",
        "Learning rate in effect",
        "Training loss",
        "Gradient over depth",
        "Size of the gradient's entries at step 25",
        "step 30 · norm 100 · loss 1.5 · rate 0.1",
        "bad batch",
        "max_norm=1, steps=3",
        "torch 2.13",
    ):
        assert expected in text, expected
    assert "data:image/png" in html, "the heatmap"
    assert len(re.findall(r"<tr data-step", html)) == 2
    assert html.count("step 30: exploding (critical)") >= 4, "marked in every chart over steps"


@needs_browser
def test_a_browser_draws_what_is_odd(tmp_path: Path) -> None:
    nasty = "</script><b>x"
    odd = history(1, (nasty,), norm=math.nan)
    file = tmp_path / "run.html"
    nothing = pd.DataFrame(columns=list(COLUMNS)).astype({"step": int, "optimizer": int})
    file.write_text(page(history=odd, steps=nothing, alerts=[], interventions=[], histograms=[], environment={}))
    html = opened(file, tmp_path / "profile")
    assert 'data-drawn="yes"' in html
    assert "NaN or infinite" in html


def compared() -> pd.DataFrame:
    rows = [
        (
            "lr",
            "plain",
            guard,
            str(seed),
            "FINISHED",
            "finished",
            "",
            "",
            "",
            "",
            score + seed / 100,
            gain,
            f"{guard}{seed}",
            "",
        )
        for guard, score, gain in (("none", 0.1, 0.0), ("full", 0.9, 0.8))
        for seed in range(6)
    ]
    table = pd.DataFrame(rows, columns=list(RUN_COLUMNS)).assign(is_baseline=[True] * 6 + [False] * 6)
    table.attrs = {"metric": "val/accuracy", "less_is_better": False, "experiment": "demo"}
    return table


@needs_browser
def test_a_browser_draws_the_comparison(tmp_path: Path) -> None:
    file = tmp_path / "comparison.html"
    file.write_text(comparison_page(compared()))
    html = opened(file, tmp_path / "profile")
    text = text_of(html)
    assert 'data-drawn="yes"' in html
    assert html.count("<circle") == 12
    assert "full gains most over the baseline, +0.800 ± 0.000 (over 6 seeds, p = 0.031)" in text
    assert "0.925 ± 0.019 +0.800 ± 0.000 0.031" in text
