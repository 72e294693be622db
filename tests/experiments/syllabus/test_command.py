"""The command, on its quick subset with a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from experiments.syllabus import __main__ as command
from experiments.syllabus.claims import Setting, all_settings
from experiments.syllabus.judging import collect, judge
from experiments.syllabus.runs import jobs


@pytest.mark.slow
def test_the_quick_subset_shows_what_is_true_and_what_is_not(
    tmp_path: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "outcomes"
    arguments = ["--subset", "quick", "--folder", str(folder), "--workers", "1"]
    assert command.main(arguments) == 0
    results = collect(jobs(all_settings("quick"), [0], folder))
    held = {setting: judge(setting, results) for setting in results}
    assert len(held) == len(all_settings("quick"))
    for problem in ("sigmoid", "large_weights", "recurrent_explodes"):
        assert held[Setting(problem)] == "held", "the problem is one"
        assert held[Setting(problem, guard="full")] == "held", "the guard repairs it"
        assert results[Setting(problem)].verdicts in ("vanishing", "exploding")
    for cure in ("relu", "batch_norm"):
        assert held[Setting("sigmoid", (cure,))] == "held"
    for cure in ("clip_value", "clip_norm", "layer_norm"):
        assert held[Setting("sigmoid", (cure,))] == "did not hold", "clipping lifts nothing that is small"
    ill, clipped = results[Setting("sigmoid")], results[Setting("sigmoid", ("clip_value",))]
    assert ill.middle("error_ratio") == clipped.middle("error_ratio")
    assert held[Setting("large_weights", ("init_he",))] == "held"

    experiment = client.get_experiment_by_name("syllabus")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (one for one in runs if "mlflow.parentRunId" not in one.data.tags)
    children = [one for one in runs if one is not parent]
    assert {one.info.status for one in runs} == {"FINISHED"}
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    told = {(child.data.params["problem"], child.data.params["cure"], child.data.params["guard"]) for child in children}
    assert told == {(one.problem, "+".join(one.cures) or "none", one.guard) for one in held}
    assert all(child.data.tags["held"] in set(held.values()) for child in children)
    assert all("quality" in child.data.metrics for child in children)

    capsys.readouterr()
    assert command.main([*arguments, "--no-mlflow"]) == 0
    assert " of " not in capsys.readouterr().out.split("\n")[0], "nothing is trained twice"
    assert "## Differences" in (folder / "syllabus.md").read_text()
    assert (folder / "syllabus.png").stat().st_size > 10_000


def test_a_wrong_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--seeds", "0"])
    assert "must be a whole number of at least 1, got 0" in capsys.readouterr().err
