"""Recordings of real runs, and labels of made-up outcomes."""

from __future__ import annotations

import math
import signal
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

from experiments.corpus import Recording, Scenario, describe, label_runs, load_scenarios, lost_at, onset_of, quick
from experiments.corpus import with_references as referenced
from experiments.corpus.making import key_of, make_recording, record_all
from experiments.corpus.measures import activation_shares, mean_absolute, middle_range, zero_share
from experiments.corpus.recorder import Recorder
from experiments.corpus.scenarios import configs
from experiments.run import run
from experiments.scoreboard.detectors import replay
from grad_callbacks import Alert, Reading
from grad_callbacks.detection.rules import RULES
from tests.support.helpers import Regression, batches, fit, mlp
from tests.support.processes import ForkServer, wait_until

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


# Keys and resuming


def test_the_key_tells_runs_apart_and_nothing_else() -> None:
    plain = key_of(composed("experiment=healthy"))
    assert key_of(composed("experiment=healthy", "guard=full", "variant=other")) == plain
    assert key_of(composed("experiment=healthy", "seed=1")) != plain
    assert key_of(composed("experiment=healthy", "optimizer.lr=0.02")) != plain


def test_a_run_that_crashes_is_named_and_the_others_are_recorded(tiny_corpus: Path, tmp_path: Path) -> None:
    (tiny_corpus / "experiment/corpus/broken.yaml").write_text(
        "# @package _global_\nexpects: {kinds: [], reference: good}\nmodel: {depth: -1}\n"
    )
    jobs = describe(load_scenarios(tiny_corpus).values(), [0], tmp_path / "recordings", tiny_corpus)
    assert [job.scenario for job in jobs] == ["bad", "broken", "good"]
    failures = record_all(jobs[1:], workers=1, conf=tiny_corpus)
    assert list(failures) == ["broken/0"]
    assert "depth must be a whole number" in failures["broken/0"]
    assert [job.path.exists() for job in jobs] == [False, False, True]
    assert Recording.read(jobs[2].path).scenario == "good"


def test_a_config_that_cannot_be_composed_is_named(tiny_corpus: Path) -> None:
    (tiny_corpus / "experiment/corpus/good.yaml").write_text(
        "# @package _global_\ndefaults: [override /activation: swish9]\nexpects: {reference: good}\n"
    )
    with pytest.raises(ValueError, match=r"corpus/good: .*swish9"):
        describe(load_scenarios(tiny_corpus).values(), [0], Path("recordings"), tiny_corpus)


WITH_A_WORKER = """
import os, time
from experiments.corpus.workers import pool

if __name__ == "__main__":
    processes = pool(1)
    print(processes.submit(os.getpid).result(), flush=True)
    processes.submit(time.sleep, 600)
    time.sleep(600)
"""


def test_processes_end_with_the_one_that_made_them(fork_server: ForkServer, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WITH_A_WORKER)
    maker = fork_server.start_script(script, cwd=tmp_path)
    assert wait_until(lambda: maker.said.endswith("\n")), maker.said
    maker.send(signal.SIGKILL)
    maker.wait()
    worker = int(maker.said)
    assert wait_until(lambda: not _runs(worker), 30)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # dead, and nobody has asked for its exit status


# Scenarios


def test_every_scenario_says_what_is_expected_and_has_a_healthy_reference() -> None:
    scenarios = load_scenarios()
    assert set(referenced(scenarios.values(), scenarios)) == set(scenarios)
    assert {scenario.kind for scenario in scenarios.values()} <= {"", "vanishing", "exploding", "nonfinite"}


def test_the_halves_are_fixed_by_the_name_alone() -> None:
    assert [Scenario(name).split for name in ("mlp_relu", "sigmoid_8", "one_cycle")] == ["tune", "score", "score"]
    halves = [Scenario(f"scenario_{i}").split for i in range(1000)]
    assert 450 < halves.count("score") < 550


def test_the_quick_subset_takes_the_first_of_each_kind() -> None:
    kinds: list[tuple[str, ...]] = [(), ("vanishing",), ("exploding", "nonfinite"), ("nonfinite",)]
    scenarios = [Scenario(f"{i}", kinds=kinds[i % 4]) for i in range(80)]
    chosen = quick(scenarios)
    counts = [sum(scenario.kinds == kind for scenario in chosen) for kind in kinds]
    assert counts == [12, 4, 4, 4]
    assert quick(reversed(scenarios)) == chosen


@pytest.mark.parametrize("text", ["scenario: x", "expects: {kinds: []}", "expects: {reference: good, kind: []}"])
def test_a_scenario_without_expectations_is_named(text: str, tiny_corpus: Path) -> None:
    (tiny_corpus / "experiment/corpus/wrong.yaml").write_text(text)
    with pytest.raises(ValueError, match="corpus/wrong: expects must hold"):
        load_scenarios(tiny_corpus)


def test_a_reference_must_be_healthy() -> None:
    bad = Scenario("bad", kinds=("vanishing",), reference="bad")
    with pytest.raises(ValueError, match="corpus/bad: its reference 'bad' is no healthy scenario"):
        referenced([bad], {"bad": bad})


# Labels


REFERENCE = {("good", 0): 0.8, ("good", 1): 1.0, ("good", 2): 0.9}  # the median is 0.9
MADE = {
    "good": Scenario("good", reference="good"),
    "bad": Scenario("bad", kinds=("exploding",), reference="good"),
}


@pytest.mark.parametrize(
    ("qualities", "labels"),
    [
        ([0.76, 0.7, 0.1], ["failing"] * 3),
        ([0.84, 0.9, 1.0], ["healthy"] * 3),
        ([math.nan, -math.inf, 0.1], ["failing"] * 3),
        ([0.8, 0.1, 0.1], ["unsettled", "failing", "failing"]),
        ([0.9, 0.1, 0.1], ["unsettled", "failing", "failing"]),
        ([0.9, 0.8, 0.1], ["unsettled"] * 3),
        ([0.9], ["healthy"]),
        ([0.9, 0.1], ["unsettled"] * 2),
    ],
)
def test_runs_are_labelled_by_their_outcome(qualities: list[float], labels: list[str]) -> None:
    made = REFERENCE | {("bad", seed): quality for seed, quality in enumerate(qualities)}
    found = label_runs(MADE, made)
    assert [found.labels["bad", seed] for seed in range(len(qualities))] == labels


def test_a_scenario_that_turns_out_otherwise_than_expected_is_told() -> None:
    assert label_runs(MADE, REFERENCE | {("bad", 0): 0.9}).contradictions == ["bad"]
    assert label_runs(MADE, REFERENCE | {("bad", 0): 0.1}).contradictions == []
    assert label_runs(MADE, {("bad", 0): 0.9}).labels["bad", 0] == "unsettled", "there is nothing to compare with"


FALLING = np.linspace(2.0, 1.0, 50)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (FALLING, None),
        (np.concatenate([FALLING, np.full(50, 2.5)]), 50),
        (np.concatenate([FALLING, np.full(50, np.nan)]), 50),
        (np.concatenate([FALLING, [9.0], FALLING[-20:]]), None),  # one bad batch
        (np.concatenate([FALLING, np.full(30, 2.5), FALLING]), None),  # it comes back
        (np.full(100, 2.0), 0),
        (np.linspace(2.0, 5.0, 100), 0),
        (np.full(100, np.nan), 0),
        (2.0 - 0.05 * (np.arange(100) % 2), 0),  # noise is no learning
    ],
)
def test_the_loss_is_lost_where_it_never_comes_back(losses: Any, expected: int | None) -> None:
    assert lost_at(np.arange(len(losses)), np.asarray(losses, dtype=np.float64)) == expected


def test_the_onset_is_what_the_config_says_or_where_the_loss_was_lost() -> None:
    assert onset_of(Scenario("a", onset=7), lost=50) == 7
    assert onset_of(Scenario("a"), lost=50) == 50
    assert onset_of(Scenario("a"), lost=None) == 0


def test_a_scenario_is_recorded_from_its_file(tiny_corpus: Path) -> None:
    with configs(tiny_corpus):
        recording = make_recording("bad", 1)
    assert (recording.name, recording.steps) == ("bad/1", 60)
    assert recording.alerts[0].kind == "vanishing"
