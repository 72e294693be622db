from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grad_callbacks import Alert, Intervention
from grad_callbacks.measurement.histograms import HISTOGRAM, Histogram
from grad_callbacks.reporting.step_series import COLUMNS
from grad_callbacks.tracking.run_page.grid import MAX_COLUMNS
from grad_callbacks.tracking.run_page.pictures import (
    heatmap,
    histogram_picture,
    profile_picture,
    profile_steps,
    steps_picture,
)


def history(steps: list[int], layers: int, norm: float = 1.0) -> pd.DataFrame:
    rows = [(step, f"layer.{depth}", depth, norm) for step in steps for depth in range(layers)]
    return pd.DataFrame(rows, columns=["step", "layer", "depth", "norm"])


@pytest.mark.parametrize(
    ("frame", "columns"),
    [
        (history([0], 1), 1),
        (history(list(range(50)), 3), 50),
        (history(list(range(0, 5000, 7)), 60), 556),
        (history([0, 1], 2, norm=0.0), 2),
        (history([0, 1], 2, norm=np.nan), 2),
    ],
)
def test_any_history_can_be_drawn(frame: pd.DataFrame, columns: int, tmp_path: Path) -> None:
    figure = heatmap(frame, [Alert("exploding", "warning", 1, (), "", {}, "", "")], [])
    figure.savefig(tmp_path / "heatmap.png")
    mesh = figure.axes[0].collections[0].get_array()
    assert mesh.shape == (frame["layer"].nunique(), columns)
    assert columns <= MAX_COLUMNS
    profile_picture(frame.assign(rms=frame["norm"]), []).savefig(tmp_path / "profile.png")


def test_the_first_layer_is_on_top_and_marks_are_at_their_steps() -> None:
    alert = Alert("exploding", "warning", 10, (), "", {}, "", "")
    figure = heatmap(history(list(range(20)), 3), [alert], [Intervention(12, "ClipNorm", "exploding", {})])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer.0", "layer.1", "layer.2"]
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert [line.get_xdata()[0] for line in axes.lines] == [10, 12]


def test_alerts_of_any_kind_are_marked_in_the_colour_and_order_of_their_kind() -> None:
    alerts = [Alert(kind, "warning", 5, (), "", {}, "", "") for kind in ("plateau", "exploding", "vanishing")]
    frame = history(list(range(20)), 3).assign(rms=1.0)
    figure = heatmap(frame, alerts, [Intervention(12, "ClipNorm", "plateau", {})])
    legend = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert legend["plateau alert"] == "#6b7280", "no rule declares it here"
    assert (legend["exploding alert"], legend["vanishing alert"]) == ("#d1603d", "#6d5a9c")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[-2:] == ["plateau alert", "intervention"], "the built-in kinds come first"
    assert (5, "#6b7280", "first alert") in profile_steps(frame, alerts)


def test_non_finite_values_and_zeros_are_marked() -> None:
    frame = history([0, 1, 2], 2)
    frame.loc[0, "norm"], frame.loc[1, "norm"] = 0.0, np.nan
    figure = heatmap(frame, [], [])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["zero", "NaN or infinite"]


def test_profiles_before_at_and_after_the_first_alert() -> None:
    frame = history(list(range(20)), 3)
    assert [step for step, _, _ in profile_steps(frame, [])] == [0, 19]
    at = Alert("exploding", "warning", 7, (), "", {}, "", "")
    assert [step for step, _, _ in profile_steps(frame, [at])] == [0, 7, 19]
    assert [step for step, _, _ in profile_steps(history([0], 3), [])] == [0]


def test_the_picture_over_steps_shows_clipping_rate_and_loss() -> None:
    rows = [(step, 0, 10.0**step, 1.0, 0.1, 2.0) for step in range(5)]
    at = Alert("exploding", "warning", 3, (), "", {}, "", "")
    figure = steps_picture(pd.DataFrame(rows, columns=list(COLUMNS)), [at], [Intervention(3, "x", "exploding", {})])
    norm, rate, loss = figure.axes
    assert norm.get_yscale() == "log"
    assert norm.lines[0].get_ydata().tolist() == [1, 10, 100, 1000, 10000]
    assert norm.lines[1].get_ydata().tolist() == [1] * 5
    assert rate.lines[0].get_ydata().tolist() == [0.1] * 5
    assert loss.lines[0].get_ydata().tolist() == [2.0] * 5
    assert [line.get_xdata()[0] for line in norm.lines[2:]] == [3, 3]


def test_without_a_loss_there_are_two_charts() -> None:
    rows = [(step, 0, np.nan, np.inf, 0.1, np.nan) for step in range(3)]
    figure = steps_picture(pd.DataFrame(rows, columns=list(COLUMNS)), [], [])
    assert len(figure.axes) == 2


def test_a_histogram_is_a_picture(tmp_path: Path) -> None:
    figure = histogram_picture(Histogram(25, tuple("abc"), np.full((3, HISTOGRAM.bins), 1 / HISTOGRAM.bins)))
    figure.savefig(tmp_path / "histogram.png")
    assert figure.axes[0].images[0].get_array().shape == (3, HISTOGRAM.bins)
