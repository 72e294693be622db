"""The doctor on the configs of the experiments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.doctor import HydraSource, main

QUICK = ["model.depth=7", "model.width=16", "trainer.max_epochs=1", "optimizer.lr=0.05"]


def test_a_config_is_trained_for_as_long_as_it_says_and_cured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["activation=sigmoid", "init=xavier", *QUICK, "optimizer.lr=0.03", "trainer.max_epochs=8"]
    assert main([*overrides, "--folder", str(tmp_path), "--no-log", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ill"]["steps"] == 8 * 22
    assert found["ill"]["cause"] == "saturated activations"
    assert found["best"]["metrics"]["val/quality"] > 0.7 > found["ill"]["metrics"]["val/quality"]


def test_a_source_makes_the_same_training_twice() -> None:
    source = HydraSource(tuple(QUICK))
    first, again, other = (source.make(seed).module.model.state_dict() for seed in (0, 0, 1))
    assert all(bool((first[name] == again[name]).all()) for name in first)
    assert any(bool((first[name] != other[name]).any()) for name in first)


def test_an_injected_fault_is_part_of_the_training() -> None:
    setup = HydraSource((*QUICK, "fault=corrupt_batch")).make(0)
    assert [type(callback).__name__ for callback in setup.callbacks] == ["CorruptBatch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=nothing"], "Could not find 'experiment/nothing'"),
        (["model.depth=0"], "model: depth must be a whole number of at least 1"),
        (["--trils", "3"], "unknown option --trils"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--no-log"])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
