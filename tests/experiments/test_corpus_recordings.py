"""Recordings of real runs, and what is measured beside each reading."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose
from lightning.pytorch import Callback
from omegaconf import DictConfig
from torch import nn

from experiments.corpus import Recording
from experiments.corpus.making import key_of
from experiments.corpus.measures import activation_shares, mean_absolute, middle_range, zero_share
from experiments.corpus.recorder import Recorder
from experiments.corpus.scenarios import configs
from experiments.run import run
from experiments.scoreboard.detectors import replay
from grad_callbacks import Alert, Reading
from grad_callbacks.detection.rules import RULES
from tests.support.helpers import Regression, batches, fit, mlp

SHORT = ["logger=none", "guard=none", "trainer.enable_progress_bar=false"]


def composed(*overrides: str) -> DictConfig:
    with configs():
        return compose("config", overrides=[*SHORT, *overrides])


def recorded(*overrides: str, path: Path | None = None) -> tuple[Recorder, Recording]:
    recorder = Recorder()
    result = run(composed(*overrides), [recorder.monitor, recorder])
    recording = recorder.recording("made", 0, result.quality, 1.0, "key")
    if path is not None:
        recording.write(path)
        recording = Recording.read(path)
    return recorder, recording


def told(alerts: list[Alert]) -> list[tuple[Any, ...]]:
    # The diagnosis adds cause, advice and some evidence, from the model.
    return [(alert.step, alert.kind, alert.severity, alert.layers, alert.optimizer) for alert in alerts]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    return type(first) is type(second) and (first == second or (math.isnan(first) and math.isnan(second)))


@pytest.mark.parametrize(
    ("experiment", "kind"), [("deep_sigmoid", "vanishing"), ("high_lr", "exploding"), ("healthy", None)]
)
def test_a_recording_replays_to_the_live_alerts(experiment: str, kind: str | None, tmp_path: Path) -> None:
    recorder, recording = recorded(f"experiment={experiment}", "trainer.max_epochs=6", path=tmp_path / "run.npz")
    assert told(recording.alerts) == told(recorder.monitor.alerts)
    assert told(replay(recording.streams[0], list(RULES))) == told(recorder.monitor.alerts)
    assert (recorder.monitor.alerts[0].kind if recorder.monitor.alerts else None) == kind


def test_a_recording_that_is_read_back_holds_all_that_a_reading_had(tmp_path: Path) -> None:
    recorder, recording = recorded("experiment=healthy", "trainer.max_epochs=1", path=tmp_path / "run.npz")
    live = list(recorder.keep.streams[0].readings)
    back = list(recording.streams[0].readings)
    assert len(live) == len(back) == recording.readings == recording.steps == 22
    for before, after in zip(live, back, strict=True):
        for field in fields(Reading):
            if field.name != "layers":
                assert same(getattr(before, field.name), getattr(after, field.name)), field.name
        assert same(before.profile, after.profile)
        assert same(before.error_profile, after.error_profile)
    assert back[0].layers.names == live[0].layers.names
    assert back[0].layers.activations == {"ReLU": live[0].layers.activations["ReLU"]}
    assert list(tmp_path.iterdir()) == [tmp_path / "run.npz"], "no unfinished file is left"


def test_what_published_rules_look_at_is_measured_beside_each_reading() -> None:
    _, recording = recorded("experiment=healthy", "trainer.max_epochs=1")
    [segment] = recording.streams[0].segments
    shape = (22, len(segment.layers.shapes))
    assert {name: values.shape for name, values in segment.beside.items()} == dict.fromkeys(
        ("mean_absolute", "zero_share", "middle_range"), shape
    )
    # The mean of absolute entries lies below their root mean square, and not far below.
    rms = np.array([reading.norms for reading in segment.readings]) / np.sqrt(segment.layers.numel)
    ratio = segment.beside["mean_absolute"] / rms
    assert (ratio < 1 + 1e-6).all()
    assert ratio.min() > 0.1
    assert np.isfinite(segment.beside["zero_share"][[0, 9, 10, 15, 20]]).all()
    assert np.isnan(segment.beside["zero_share"][11]).all()
    assert recording.epochs == [0]
    assert recording.activation.steps.tolist() == [0, 10, 20]
    assert recording.activation.kinds == ["ReLU"] * len(recording.activation.names)
    assert np.isfinite(recording.activation.shares["input_variance"]).all()
    steps, losses = recording.step_losses()
    assert steps.tolist() == list(range(22))
    assert losses[0] > losses[-1] > 0


def test_recording_does_not_change_the_run() -> None:
    short = ["experiment=healthy", "trainer.max_epochs=1"]
    assert recorded(*short)[1].quality == run(composed(*short)).quality


class Unfreeze(Callback):
    """Gives the optimizer a layer more at a step, as a fine-tuning schedule does."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 5:
            trainer.optimizers[0].add_param_group({"params": list(pl_module.model[0].parameters())})


def test_layers_that_change_in_mid_run_begin_a_new_segment(tmp_path: Path) -> None:
    recorder = Recorder()
    task = Regression(mlp(4, 8, 8, 2), lambda _: torch.optim.SGD(task.model[2:].parameters(), lr=0.01))
    fit(task, recorder.monitor, recorder, Unfreeze(), data=batches(10))
    recorder.recording("made", 0, 1.0, 1.0, "key").write(tmp_path / "run.npz")
    first, second = Recording.read(tmp_path / "run.npz").streams[0].segments
    assert [len(segment.readings) for segment in (first, second)] == [5, 5]
    assert (len(first.layers.names), len(second.layers.names)) == (2, 3)
    assert second.beside["mean_absolute"].shape == (5, 6)


def test_accumulated_batches_give_one_loss_a_step() -> None:
    _, recording = recorded("experiment=healthy", "trainer.max_epochs=1", "+trainer.accumulate_grad_batches=2")
    steps, losses = recording.step_losses()
    assert (len(recording.losses), len(steps)) == (22, 11)
    assert losses[0] == pytest.approx(recording.losses[:2].mean())


# What is measured


def test_gradients_are_measured_over_all_entries() -> None:
    gradients = [torch.tensor([1.0, -3.0, 0.0, 0.0]), None]
    assert mean_absolute(gradients, [4, 2])[0] == 1.0
    assert mean_absolute([torch.tensor([2.0])], [10])[0] == 0.2, "a sparse gradient stores few of its entries"
    assert math.isnan(mean_absolute(gradients, [4, 2])[1])
    assert zero_share(gradients[0], 4) == 0.5
    assert middle_range(torch.linspace(0, 1, 1001)) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (nn.ReLU(), [[1.0, -1.0], [1.0, -1.0]], {"inactive": 0.5, "mute": 0.5}),
        (nn.ReLU(), [[1.0, -1.0], [1.0, 1.0]], {"inactive": 0.0, "mute": 0.0}),
        (nn.LeakyReLU(), [[1.0, -1.0], [1.0, -1.0]], {"mute": 0.0}),
        (nn.Tanh(), [[0.1, 9.0], [0.1, -9.0]], {"beyond": 0.0, "saturated": 0.5}),
        (nn.Tanh(), [[0.1, 10.0], [0.1, -10.0]], {"beyond": 0.5, "saturated": 0.5}),
        (nn.Sigmoid(), [[0.0, 20.0], [0.0, 20.0]], {"beyond": 0.5, "saturated": 0.5}),
        (nn.Sigmoid(), [[0.0, 10.0], [0.0, -10.0]], {"beyond": 0.0, "saturated": 0.5}),
    ],
)
def test_units_at_their_extremes_are_counted(
    module: nn.Module, inputs: list[list[float]], expected: dict[str, float]
) -> None:
    x = torch.tensor(inputs)
    names = ("inactive", "mute", "beyond", "saturated")
    measured = dict(zip(names, activation_shares(module, x, module(x)), strict=False))
    assert {name: value for name, value in measured.items() if not math.isnan(value)} == expected


def test_the_units_of_a_convolution_are_its_channels() -> None:
    x = torch.ones(2, 4, 3, 3)
    x[:, 0] = -1
    assert activation_shares(nn.ReLU(), x, x.relu())[0] == 0.25


def test_the_key_tells_runs_apart_and_nothing_else() -> None:
    plain = key_of(composed("experiment=healthy"))
    assert key_of(composed("experiment=healthy", "guard=full", "variant=other")) == plain
    assert key_of(composed("experiment=healthy", "seed=1")) != plain
    assert key_of(composed("experiment=healthy", "optimizer.lr=0.02")) != plain
