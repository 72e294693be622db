"""Scores of made-up runs, and the command line from end to end, on a real store."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from experiments.corpus import Recording, Scenario
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.detectors import Alarm, all_detectors
from experiments.scoreboard.judging import Judged
from experiments.scoreboard.picture import score_picture
from experiments.scoreboard.scoring import Score, score
from experiments.scoreboard.table import score_table
from experiments.scoreboard.tracking import EXPERIMENT, verdict_table
from tests.support.processes import ForkServer, wait_until

SCENARIOS = {
    "healthy": Scenario("healthy", reference="healthy"),
    "sigmoid": Scenario("sigmoid", ("vanishing",), ("saturated activations",), "healthy", onset=0),
    "rate": Scenario("rate", ("exploding", "nonfinite"), ("learning rate too high",), "healthy"),
    "nan": Scenario("nan", ("nonfinite",), ("bad batch",), "healthy", onset=50),
}


def judged(scenario: str, *alarms: Alarm, seed: int = 0, lost: int | None = None, readings: int = 200) -> Judged:
    return Judged(scenario, seed, 0.0, readings, lost, {"made": list(alarms)})


def alarm(step: int, *kinds: str, cause: str = "") -> Alarm:
    return Alarm(step, kinds, cause)


def scored(*runs: Judged) -> Score:
    labels: dict[tuple[str, int], Any] = {
        (run.scenario, run.seed): "failing" if SCENARIOS[run.scenario].kinds else "healthy" for run in runs
    }
    return score("made", runs, SCENARIOS, labels)


def test_precision_and_recall_count_runs() -> None:
    m = scored(
        judged("healthy", seed=0),
        judged("healthy", alarm(3, "exploding"), seed=1),
        judged("sigmoid", alarm(9, "vanishing")),
        judged("rate", alarm(9, "vanishing")),
        judged("rate", alarm(9, "nonfinite"), seed=1),
        judged("nan"),
    ).metrics()
    assert m["precision"] == 2 / 4
    assert m["recall"] == 2 / 4
    assert (m["recall_vanishing"], m["recall_exploding"], m["recall_nonfinite"]) == (1.0, 0.5, 0.0)
    assert (m["healthy_runs_alarmed"], m["healthy_runs"], m["failing_runs"], m["wrong_kind"]) == (1, 2, 4, 1)


def test_the_first_alarm_decides_and_of_several_at_once_the_right_one() -> None:
    first = scored(judged("sigmoid", alarm(9, "exploding"), alarm(10, "vanishing")))
    assert [verdict.result for verdict in first.verdicts] == ["wrong kind"]
    at_once = scored(judged("sigmoid", alarm(9, "exploding"), alarm(9, "vanishing")))
    assert [verdict.result for verdict in at_once.verdicts] == ["hit"]
    undecided = scored(judged("nan", alarm(60, "exploding", "nonfinite")))
    assert [verdict.result for verdict in undecided.verdicts] == ["hit"]


def test_false_alarms_are_counted_in_episodes_per_ten_thousand_healthy_steps() -> None:
    spikes = [alarm(step, "exploding") for step in (5, 6, 7, 100)]
    m = scored(judged("healthy", *spikes), judged("healthy", seed=1, readings=300)).metrics()
    assert m["false_alarms_per_10000_steps"] == pytest.approx(2 / 500 * 1e4)


def test_delay_counts_from_the_onset_and_lead_to_where_the_loss_was_lost() -> None:
    late, early, found, never = scored(
        judged("nan", alarm(57, "nonfinite"), lost=60),
        judged("nan", alarm(40, "nonfinite"), seed=1, lost=60),
        judged("rate", alarm(90, "exploding"), lost=80),  # whose onset is found in the loss
        judged("rate", alarm(3, "exploding"), seed=1, lost=0),
    ).verdicts
    assert (late.delay, late.lead, late.is_early) == (7, 3, False)
    assert (early.delay, early.lead, early.is_early) == (0, 20, True)
    assert (found.delay, found.lead) == (10, -10)
    assert never.delay == 3
    assert math.isnan(never.lead), "there was never a loss to lose"


def test_causes_count_where_one_is_named() -> None:
    right = judged("sigmoid", alarm(9, "vanishing", cause="saturated activations"))
    wrong = judged("nan", alarm(50, "nonfinite", cause="undefined operation"))
    unnamed = judged("rate", alarm(9, "exploding"))
    assert scored(right, wrong, unnamed).metrics()["cause_accuracy"] == 0.5
    assert math.isnan(scored(unnamed).metrics()["cause_accuracy"])


def test_runs_without_a_clear_label_are_left_out() -> None:
    runs = [judged("sigmoid"), judged("healthy", seed=1), judged("healthy", alarm(1, "exploding"))]
    labels: dict[tuple[str, int], Any] = {("sigmoid", 0): "unsettled", ("healthy", 1): "healthy"}
    assert [verdict.scenario for verdict in score("made", runs, SCENARIOS, labels).verdicts] == ["healthy"]
    failed = score("made", runs[1:2], SCENARIOS, {("healthy", 1): "failing"})
    assert failed.verdicts == [], "no kind would be right"


def test_a_failing_scenario_that_comes_out_healthy_counts_as_healthy() -> None:
    one = score("made", [judged("rate", alarm(9, "exploding"))], SCENARIOS, {("rate", 0): "healthy"})
    assert [verdict.result for verdict in one.verdicts] == ["false alarm"]


def test_nothing_is_divided_by_nothing() -> None:
    m = scored().metrics()
    assert all(math.isnan(m[name]) for name in ("precision", "recall", "false_alarms_per_10000_steps", "median_delay"))
    assert score_table([scored()]).row_count == 1
    assert verdict_table(scored()).empty


def test_a_picture_is_made_of_any_scores(tmp_path: Path) -> None:
    good = scored(judged("sigmoid", alarm(9, "vanishing")), judged("healthy"))
    bad = scored(judged("sigmoid"), judged("healthy", alarm(9, "vanishing")))
    score_picture([good, bad, scored()], "made").savefig(tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 10_000


# The command line


def options(tiny_corpus: Path, folder: Path) -> list[str]:
    return ["--conf", str(tiny_corpus), "--folder", str(folder), "--seeds", "0", "1", "--workers", "1"]


def test_a_killed_command_goes_on_from_where_it_was(
    tiny_corpus: Path, tmp_path: Path, client: MlflowClient, fork_server: ForkServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recordings"
    arguments = ["detect", "--split", "all", *options(tiny_corpus, folder)]
    process = fork_server.start_module("experiments.scoreboard", *arguments, cwd=tmp_path)
    wait_until(lambda: bool(list(folder.glob("*.npz"))) or process.has_ended(), 100)
    process.send(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert before

    assert main(arguments) == 0
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert after.items() >= before.items(), "what was there is not recorded again"
    assert sorted(Recording.read(path).name for path in after) == ["bad/0", "bad/1", "good/0", "good/1"]
    told = capsys.readouterr().out
    assert "2 failing, 2 healthy, 0 unsettled" in told
    assert f"{4 - len(before)} of 4 runs recorded" in told
    assert (folder / "scoreboard.png").stat().st_size > 10_000
    _check_store(client)

    assert main(["replay", "--rules", '["NonFinite"]', "--split", "all", *options(tiny_corpus, folder)]) == 0
    told = capsys.readouterr().out
    assert "ours, changed" in told
    assert "missed (2)" in told


def test_where_it_is_strict_a_mistake_of_our_rules_is_a_failure(tiny_corpus: Path, tmp_path: Path) -> None:
    arguments = ["detect", "--strict", "--no-mlflow", "--split", "all", *options(tiny_corpus, tmp_path / "recordings")]
    assert main(arguments) == 0
    bad = tiny_corpus / "experiment/corpus/bad.yaml"
    bad.write_text(bad.read_text().replace("kinds: [vanishing]", "kinds: [nonfinite]"))
    assert main(arguments) == 1


def _check_store(client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("all, 2 scenarios, seeds 0 1")
    assert set(runs) == {detector.name for detector in all_detectors()}
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    ours = runs["ours"]
    assert ours.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert ours.data.metrics["recall"] == ours.data.metrics["precision"] == 1.0
    assert ours.data.metrics["healthy_runs_alarmed"] == 0.0
    assert "median_lead" not in ours.data.metrics, "there was nothing to lose"
    assert runs["AutoTrainer"].data.params["ratio_high"] == "70.0"
    verdicts = json.loads(Path(download_artifacts(f"{ours.info.artifact_uri}/verdicts.json")).read_text())
    column = verdicts["columns"].index("result")
    assert sorted(row[column] for row in verdicts["data"]) == ["hit", "hit", "quiet", "quiet"]
    assert Path(download_artifacts(f"{parent.info.artifact_uri}/scores.png")).stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "--scenarios", "nosuch"], "there is no scenario 'nosuch'"),
        (["detect", "--picture", "/no/such/folder/x.png"], "there is no folder /no/such/folder for the picture"),
        (["replay", "--rules", '["Vanishng"]'], "unknown rule 'Vanishng'"),
        (["replay", "--rules", '[{"NonFinite": {"overflows": 1}}]'], "rule NonFinite: "),
        (["replay", "--folder", "nowhere"], "there are no recordings of these runs: make them with detect"),
        (["replay", "--conf", "nowhere"], "no scenario of tune is left"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "--seeds", "-1"], "--seeds"),
        (["detect", "--workers", "0"], "a whole number of at least 1 is needed, not '0'"),
        (["detect", "--split", "half"], "invalid choice: 'half'"),
        (["replay", "--rules", "Vanishing"], "this is no JSON"),
        (["replay", "--rules", '{"Vanishing": 1}'], "a list of rules is needed"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
