from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from grad_callbacks.reporting.layer_history import LayerHistory
from tests.support.helpers import reading


def filled(steps: int, max_rows: int = 1000) -> LayerHistory:
    history = LayerHistory(max_rows)
    for step in range(steps):
        history.append(reading([step + 1.0, 2.0, 3.0], step=step))
    return history


def test_one_row_per_step_and_layer() -> None:
    frame = filled(4).to_frame()
    assert list(frame.columns) == ["step", "layer", "depth", "norm", "rms", "weight_norm", "update_ratio", "profiled"]
    assert len(frame) == 12
    assert frame["step"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert frame["layer"].tolist()[:3] == ["0", "1", "2"]
    assert frame["norm"].iloc[-3] == 4.0
    assert frame["rms"].iloc[1] == pytest.approx(2.0 / 4)  # 4x4 entries


def test_an_empty_history_has_its_columns() -> None:
    frame = LayerHistory().to_frame()
    assert len(frame) == 0
    assert "update_ratio" in frame


def test_layers_without_a_gradient_have_no_row() -> None:
    history = LayerHistory()
    one = reading([1.0, 2.0, 3.0])
    history.append(replace(one, present=np.array([True, False, True])))
    assert history.to_frame()["layer"].tolist() == ["0", "2"]


def test_the_update_ratio_belongs_to_the_step_just_taken() -> None:
    history = LayerHistory()
    for step in (0, 1):
        taken = reading(step=step)
        place = history.append(taken)
        history.set_update_ratios(place, np.full(3, 0.1 * (step + 1)))
    assert history.to_frame()["update_ratio"].tolist() == pytest.approx([0.1] * 3 + [0.2] * 3)


def kept(alerts: tuple[int, ...], steps: int = 5000, max_rows: int = 2500) -> list[int]:
    history = LayerHistory(max_rows)
    for step in range(steps):
        history.append(reading([1.0, 1.0, 1.0], step=step))
        if step in alerts:
            history.mark()
    assert len(history.to_frame()) <= max_rows
    return sorted(set(history.to_frame()["step"]))


def test_a_long_history_is_thinned_out_evenly() -> None:
    steps = kept(())
    assert steps[-32:] == list(range(4968, 5000)), "the latest steps are all there"
    older = [step for step in steps if step < 4968]
    assert older[0] == 0
    assert len(set(np.diff(older))) == 1, "every n-th step is kept"
    assert len(older) >= 40


def test_nothing_is_lost_around_an_alert() -> None:
    steps = set(kept((1234, 4321)))
    for alert in (1234, 4321):
        assert set(range(alert - 10, alert + 11)) <= steps


def test_a_run_of_nothing_but_alerts_stays_bounded_and_keeps_the_first() -> None:
    steps = set(kept(tuple(range(100, 5000, 15))))
    assert set(range(90, 111)) <= steps


@pytest.mark.parametrize("steps", [0, 1, 50])
def test_it_resumes_from_a_checkpoint_file(steps: int) -> None:
    whole, first, second = filled(steps + 5, 100), filled(steps, 100), LayerHistory(100)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for step in range(steps, steps + 5):
        second.append(reading([step + 1.0, 2.0, 3.0], step=step))
    pd.testing.assert_frame_equal(whole.to_frame(), second.to_frame())


@pytest.mark.slow
def test_its_memory_is_bounded_whatever_the_length() -> None:
    one = reading([1.0] * 150)
    history = LayerHistory()
    tracemalloc.start()
    for step in range(10_000):
        history.append(replace(one, step=step))
        if step % 100 == 0:
            history.mark()
    frame = history.to_frame()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    assert frame["step"].nunique() > 1000
