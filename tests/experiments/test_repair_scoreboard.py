"""Repair scores of made-up outcomes, the published remedies, and the command from end to end, on a real store."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from omegaconf import OmegaConf

from experiments.corpus import Scenario
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.repair.drawn import Drawn, draw
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.picture import repair_picture
from experiments.scoreboard.repair.published import AGC, AutoClip, ZClip
from experiments.scoreboard.repair.scoring import Score, level_of, score
from experiments.scoreboard.repair.table import repair_table
from experiments.scoreboard.repair.tracking import EXPERIMENT, outcome_table
from experiments.scoreboard.repair.treatments import RANDOM, Treatment, all_treatments
from grad_callbacks import Remedy
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies import REMEDIES
from tests.support.helpers import Regression, mlp, pending

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = {
    "healthy": Scenario("healthy", reference="healthy"),
    "sigmoid": Scenario("sigmoid", ("vanishing",), (), "healthy"),
    "nan": Scenario("nan", ("nonfinite",), (), "healthy"),
}
BEFORE = {"healthy": 0.8, "sigmoid": 0.1, "nan": math.nan}


def scored(*outcomes: Outcome) -> Score:
    unguarded = {
        (name, seed): Outcome(name, seed, "unguarded", quality) for name, quality in BEFORE.items() for seed in range(3)
    }
    labels: dict[Any, Any] = {run: "failing" if SCENARIOS[run[0]].kinds else "healthy" for run in unguarded}
    return score("made", outcomes, unguarded, SCENARIOS, labels)


def outcome(scenario: str, quality: float, seed: int = 0, **options: Any) -> Outcome:
    return Outcome(scenario, seed, "made", quality, **options)


def test_a_run_is_repaired_from_0_95_of_the_reference_on() -> None:
    m = scored(outcome("sigmoid", 0.77), outcome("sigmoid", 0.75, 1), outcome("nan", 0.8), outcome("nan", math.nan, 1))
    metrics = m.metrics()
    assert (metrics["repaired"], metrics["repaired_vanishing"], metrics["repaired_nonfinite"]) == (0.5, 0.5, 0.5)
    assert math.isnan(metrics["repaired_exploding"])
    assert (metrics["repaired_low"], metrics["repaired_median"], metrics["repaired_high"]) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("twins", "level"),
    [
        ([0.75, 0.7, 0.76], 0.75),  # the same run without its fault is the closest reference
        ([0.9, 0.88, 0.91], 0.9),
        ([0.6, 0.65, 0.6], 0.6),
        ([math.nan, math.nan, 0.7], 0.7),
        ([], 0.8),
    ],
)
def test_what_a_healthy_run_has_is_told_by_the_run_without_its_fault(twins: list[float], level: float) -> None:
    unguarded = [Outcome("healthy", seed, "unguarded", 0.8) for seed in range(3)]
    faultless = [Outcome("nan", seed, "without_fault", quality) for seed, quality in enumerate(twins)]
    assert level_of(SCENARIOS["nan"], unguarded, faultless) == level
    assert level_of(SCENARIOS["sigmoid"], unguarded, faultless) == 0.8


def test_a_run_that_fails_without_its_fault_too_is_no_case_for_a_remedy() -> None:
    unguarded = {
        ("healthy", 0): Outcome("healthy", 0, "unguarded", 0.8),
        ("nan", 0): Outcome("nan", 0, "unguarded", 0.2),
    }
    labels: dict[Any, Any] = {("nan", 0): "failing"}
    for twin, runs in ((0.7, 1), (0.2, 0)):
        faultless = [Outcome("nan", 0, "without_fault", twin)]
        assert len(score("made", [outcome("nan", 0.7)], unguarded, SCENARIOS, labels, faultless).verdicts) == runs


def test_quality_is_relative_to_the_reference_and_nothing_if_it_is_not_finite() -> None:
    one = scored(outcome("nan", 0.4), outcome("sigmoid", 0.9), outcome("sigmoid", -2.0, 1))
    assert [verdict.after for verdict in one.verdicts] == [pytest.approx(0.5), 1.0, 0.0]
    assert one.metrics()["quality_gained"] == pytest.approx((0.5 + 0.875 - 0.125) / 3)


def test_harm_is_a_healthy_run_below_0_98_of_itself_and_a_refused_one_is_counted_apart() -> None:
    m = scored(
        outcome("healthy", 0.79, remedies=("ClipNorm",)),
        outcome("healthy", 0.78, 1),
        outcome("healthy", math.nan, 2, error="MisconfigurationException"),
    ).metrics()
    assert (m["healthy_runs"], m["harmed"], m["refused"], m["touched"]) == (3, 1, 1, 1)
    assert m["harmed_share"] == pytest.approx(1 / 3)
    assert scored(outcome("healthy", math.nan)).metrics()["harmed"] == 1


def test_time_is_compared_where_it_was_taken() -> None:
    m = scored(outcome("nan", 0.8, seconds=3.0, bare_seconds=2.0), outcome("nan", 0.8, 1, seconds=9.0)).metrics()
    assert m["time_ratio"] == 1.5


def test_nothing_is_divided_by_nothing_and_everything_can_be_shown(tmp_path: Path) -> None:
    scores = [scored(), scored(outcome("sigmoid", 0.8), outcome("healthy", 0.5))]
    assert math.isnan(scores[0].metrics()["repaired"])
    assert repair_table(scores).row_count == 2
    assert outcome_table(scores[0]).empty
    repair_picture(scores, "made").savefig(tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 10_000


def test_outcomes_are_kept_whole(tmp_path: Path) -> None:
    kept = outcome("nan", 0.5, seconds=1.0, bare_seconds=0.5, alerted=("nonfinite",), remedies=("SkipStep",))
    kept.write(tmp_path / "one.json")
    assert Outcome.read(tmp_path / "one.json") == kept
    outcome("nan", math.nan).write(tmp_path / "two.json")
    assert math.isnan(Outcome.read(tmp_path / "two.json").quality)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


# Treatments


def test_every_guard_is_a_treatment_and_a_guard_without_its_alert_changes_nothing() -> None:
    treatments = all_treatments(ROOT / "conf")
    assert {"full", "clip_norm", "skip_step", RANDOM, "zclip", "autoclip", "lightning_clip_1", "without_fault"} <= set(
        treatments
    )
    assert not {"none", "monitor"} & set(treatments)
    may_act = {name for name, treatment in treatments.items() if treatment.may_act(["vanishing"])}
    assert {"full", "clip_value", RANDOM, "zclip", "clip_norm_from_start"} <= may_act
    assert not {"clip_norm", "reduce_lr", "skip_step", "agc"} & may_act
    assert not treatments[RANDOM].may_act([])
    by_cause = Treatment("made", "", {"prescription": {"exploding: bad batch": ["ClipNorm"]}})
    assert by_cause.may_act(["exploding"])
    assert not by_cause.may_act(["nonfinite"])


def test_the_guard_may_have_a_tenth_more_steps() -> None:
    treatments = all_treatments(ROOT / "conf")
    longer, ours = treatments["full_longer"], treatments["full"]
    cfg = OmegaConf.create({"guard": {"callback": None}, "trainer": {"max_steps": 30}})
    assert longer.apply(cfg) == OmegaConf.merge(ours.apply(cfg), {"trainer": {"max_steps": 33}})
    assert cfg.trainer.max_steps == 30
    assert longer.key() != ours.key()


def test_the_lot_falls_on_every_remedy_and_always_alike() -> None:
    drawn = [draw(f"scenario/{seed}") for seed in range(200)]
    assert set(drawn) == set(REMEDIES)
    assert drawn == [draw(f"scenario/{seed}") for seed in range(200)]


def test_what_was_drawn_acts_and_resumes() -> None:
    remedy = Drawn("scenario", 0, "exploding")
    assert isinstance(remedy, Remedy)
    model = mlp(3, 4, 2)
    for p in model.parameters():
        p.grad = 10 * torch.ones_like(p)
    details = [remedy.engage(pending(model), Evidence({"reference": 1.0})) for _ in range(40)]
    told = [detail["drawn"] for detail in details if detail is not None]
    assert {"ClipNorm", "ReduceLR"} <= set(told)
    resumed = Drawn("scenario", 0, "exploding")
    resumed.load_state_dict(remedy.state_dict())
    assert resumed.state_dict() == remedy.state_dict()
    assert remedy.act(pending(model))


# As published


def clipped(callback: Any, norms: list[float]) -> list[float]:
    """The norms that a published remedy leaves of ``norms``."""
    weight = torch.nn.Parameter(torch.zeros(4))
    after = []
    for norm in norms:
        weight.grad = torch.full((4,), norm / 2)
        callback.clip([weight], Regression(mlp(2, 2)), 0)
        after.append(float(weight.grad.norm()))
    return after


def test_zclip_clips_by_the_z_score_and_is_poisoned_by_a_nan() -> None:
    norms = [0.1, 0.12, 0.08, 0.11, 0.09] * 5
    assert clipped(ZClip(), [*norms, 0.9])[-1] == pytest.approx(0.1 + 2.5**2 * 0.01414**2 / 0.8, rel=1e-2)
    assert clipped(ZClip(), [*norms, math.nan, 0.9])[-1] == pytest.approx(0.9)


def test_autoclip_clips_to_the_tenth_percentile() -> None:
    norms = torch.linspace(1.0, 2.0, 10).tolist()
    assert clipped(AutoClip(), [*norms, 5.0])[-1] == pytest.approx(norms[1], rel=1e-4)


def test_agc_clips_each_unit_but_the_heads() -> None:
    model = mlp(3, 4, 2)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    AGC().clip(list(model.parameters()), Regression(model), 0)
    first, last = model[0], model[2]
    bound = 0.01 * first.weight.detach().norm(dim=1)
    torch.testing.assert_close(first.weight.grad.norm(dim=1), bound)
    assert bool((last.weight.grad == 1).all())


# The command line


@pytest.mark.slow
def test_the_command_goes_on_from_what_is_there(
    tiny_corpus: Path, tmp_path: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "repairs"
    options = ["--conf", str(tiny_corpus), "--folder", str(tmp_path / "none"), "--repairs", str(folder)]
    options += ["--seeds", "0", "--workers", "1", "--split", "all"]
    assert main(["repair", *options, "--treatments", "clip_norm", "zclip", "--no-mlflow"]) == 0
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    names = sorted(name.rpartition("-")[0] for name in first)
    assert names == ["bad-0-unguarded", "bad-0-zclip", "good-0-unguarded", "good-0-zclip"], "clip_norm has no alert"
    capsys.readouterr()

    assert main(["repair", *options, "--treatments", "clip_norm", "zclip", "random"]) == 0
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert after.items() > first.items(), "what was there is not trained again"
    told = capsys.readouterr().out
    assert "1 failing, 1 healthy, 0 unsettled" in told
    assert f"{len(after) - len(first)} runs trained" in told
    assert (folder / "scoreboard.png").stat().st_size > 10_000

    runs = {
        run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    }
    parent = runs.pop("all, 2 scenarios, seeds 0")
    assert set(runs) == {"unguarded", "clip_norm", "zclip", "random"}
    assert runs["unguarded"].data.metrics["repaired"] == 0.0
    assert runs["clip_norm"].data.metrics["harmed"] == 0.0
    assert runs["zclip"].data.metrics["time_ratio"] > 0
    table = json.loads(Path(download_artifacts(f"{runs['zclip'].info.artifact_uri}/outcomes.json")).read_text())
    assert len(table["data"]) == 2
    assert Path(download_artifacts(f"{parent.info.artifact_uri}/scores.png")).stat().st_size > 10_000


def test_an_unknown_treatment_is_named(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["repair", "--conf", str(tiny_corpus), "--split", "all", "--treatments", "prayer", "--no-mlflow"]) == 2
    assert "there is no treatment 'prayer'; there are full, " in capsys.readouterr().err
