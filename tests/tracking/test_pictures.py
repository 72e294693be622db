from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grad_callbacks import Alert, Intervention
from grad_callbacks.tracking.pictures import MAX_COLUMNS, heatmap


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


def test_the_first_layer_is_on_top_and_marks_are_at_their_steps() -> None:
    alert = Alert("exploding", "warning", 10, (), "", {}, "", "")
    figure = heatmap(history(list(range(20)), 3), [alert], [Intervention(12, "ClipNorm", "exploding", {})])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer.0", "layer.1", "layer.2"]
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert [line.get_xdata()[0] for line in axes.lines] == [10, 12]
