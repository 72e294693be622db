"""The benchmarks in their quick mode: the tables' form, never the numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from experiments.bench import models, shapes
from experiments.bench.__main__ import main
from experiments.bench.fitting import fitting
from experiments.bench.pacing import Paced, alternate
from experiments.bench.table import COLUMNS, Row, Section
from experiments.bench.timing import ROUND, WARMUP, Spread, interleave, seconds
from grad_callbacks.measurement.schedule import SCHEDULE

TITLES = [
    "Measuring and clipping in one pass",
    "What is added to a step",
    "A training step with the callbacks",
    "A healthy run under the guard",
    "Memory and checkpoints",
    "Cost by size",
    "Recording in MLflow",
    "Logging to MLflow",
    "Importing the package",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "benchmarks.md"
    assert main(["--quick", "--output", str(path)]) == 0
    return path


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.slow
def test_each_benchmark_writes_a_table(written: Path) -> None:
    text = written.read_text()
    assert re.findall("^## (.*)$", text, re.MULTILINE) == TITLES
    for part in text.split("\n## ")[1:]:
        head, rule, *body = rows(part)
        assert tuple(head) == COLUMNS
        assert set(rule) == {"---"}
        assert body
        for line in body:
            assert len(line) == len(COLUMNS)
            assert line[3] == "not installed" or re.fullmatch(r"\*\*[-+]?\d+\.\d+\*\* (×|ms)", line[3])
            assert (line[5] == "–") == (line[6] == "–")
            assert line[6] in ("yes", "no", "–")


def test_one_benchmark_alone_is_printed_and_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--only", "clipping", "--output", str(tmp_path / "benchmarks.md")]) == 0
    assert re.findall("^## (.*)$", capsys.readouterr().out, re.MULTILINE) == TITLES[:1]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_machine_is_named_and_no_path_is(written: Path) -> None:
    text = written.read_text()
    assert re.search(r"\d+ cores, .*torch \d.*threads=1\.", text)
    assert str(Path.home()) not in text
    assert str(written.parent) not in text


@pytest.mark.slow
def test_the_picture_is_beside_the_table(written: Path) -> None:
    [name] = re.findall(r"!\[.*\]\((.*)\)", written.read_text())
    assert (written.parent / name).stat().st_size > 10_000


@pytest.mark.parametrize(
    ("median", "promise", "kept"), [(0.9, 1.0, "yes"), (1.0, 1.0, "yes"), (1.1, 1.0, "no"), (1.1, None, "–")]
)
def test_a_promise_is_kept_if_the_median_keeps_it(median: float, promise: float | None, kept: str) -> None:
    assert Row("case", "what", "against", Spread(median, 0.1, 9.0), promise).cells()[-1] == kept


def test_what_is_not_installed_is_said() -> None:
    text = Section("Title", "Method.", [Row("case", "what", "against", None, 1.0)]).markdown()
    assert "| case | what | against | not installed | – | – | – |" in text


@pytest.mark.parametrize(
    ("made", "label"),
    [
        (shapes.resnet50(), "161 tensors, 25.6M"),
        (shapes.gpt2(), "148 tensors, 124M"),
        (shapes.many(), "1000 tensors, 2.08M"),
        (shapes.equal(100, 10**6), "100 tensors, 1M"),
    ],
)
def test_the_shapes_are_those_of_the_networks(made: shapes.Shapes, label: str) -> None:
    assert shapes.label(made) == label


def test_a_round_holds_one_measurement_of_the_weights() -> None:
    assert (SCHEDULE.updates, SCHEDULE.interval) == (WARMUP, ROUND)


def test_variants_take_turns_in_changing_order() -> None:
    called: list[str] = []
    variants = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    times = interleave(variants, seconds, rounds=2, steps=8, warmup=1)
    turns = {"".join(called[i : i + 2]) for i in range(0, len(called), 2)}
    assert turns == {"ab", "ba"}
    assert [len(values) for values in times.values()] == [2, 2]


def test_a_training_that_fails_ends_the_benchmark_with_its_reason() -> None:
    def fail(callbacks: object) -> None:
        raise ValueError("no such layer")

    with pytest.raises(RuntimeError) as caught:
        alternate([Paced(fail, {"a": []})], rounds=1, steps=1, warmup=0)
    assert str(caught.value.__cause__) == "no such layer"


class Tally(Callback):
    def __init__(self) -> None:
        self.starts = self.steps = self.ends = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.starts += 1

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.steps += 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ends += 1


def test_a_variants_callbacks_see_its_own_steps_only() -> None:
    tallies = {name: Tally() for name in "ab"}
    fit = fitting(models.deep_mlp(layers=2, width=4, rows=2), DummyLogger())
    times = alternate([Paced(fit, {name: [tally] for name, tally in tallies.items()})], rounds=2, steps=3, warmup=1)
    assert [len(values) for values in times.values()] == [2, 2]
    for tally in tallies.values():
        assert (tally.starts, tally.steps, tally.ends) == (1, 1 + 2 * 3 + 1, 1)  # all see the last step
