"""The language models' scoreboard: settings, costs of made-up results, and the command from end to end."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from experiments.corpus import CONF
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.language_model.picture import picture
from experiments.scoreboard.language_model.report import document
from experiments.scoreboard.language_model.results import Result
from experiments.scoreboard.language_model.scoring import CHANCE, Row
from experiments.scoreboard.language_model.settings import half_of, load_settings
from experiments.scoreboard.language_model.training import digest_of
from experiments.scoreboard.language_model.treatments import TREATMENTS, chosen
from experiments.scoreboard.repair.published import AdaGC
from tests.support.helpers import Regression, mlp

SETTINGS = load_settings(names=["gpt", "gpt_muon", "gpt_rate_x10", "gpt_surge_x30_at_200", "gpt_unscaled_attention"])


@pytest.mark.slow
def test_every_setting_says_what_it_is_and_its_twin_differs_where_it_is_hurt() -> None:
    settings = load_settings().values()
    assert len(settings) >= 60
    for setting in settings:
        assert setting.what.endswith("."), setting.name
        assert (setting.twin != setting.config) == bool(setting.unhurt), setting.name
        assert setting.config.trainer.max_steps > setting.onset
        assert setting.name.split("_")[0] in ("gpt", "llama")
    halves = [setting.split for setting in settings]
    assert min(halves.count("tune"), halves.count("score")) >= 20


def test_twins_of_one_family_are_the_usual_run() -> None:
    usual = SETTINGS["gpt"].config
    twins = [SETTINGS[name].twin for name in ("gpt_rate_x10", "gpt_surge_x30_at_200", "gpt_unscaled_attention")]
    assert all(twin == usual for twin in twins)


def test_a_clip_is_the_trainers_but_where_the_module_optimizes_manually() -> None:
    clip = chosen(["clip"])[1]
    assert clip.apply(SETTINGS["gpt"].config).trainer.gradient_clip_val == 1.0
    muon = clip.apply(SETTINGS["gpt_muon"].config)
    assert (muon.trainer.gradient_clip_val, muon.task.clip) == (None, 1.0)


def test_names_that_do_not_exist_are_told() -> None:
    with pytest.raises(ValueError, match="no setting 'gtp'"):
        load_settings(names=["gtp"])
    with pytest.raises(ValueError, match="no treatment 'prayer'"):
        chosen(["prayer"])
    assert [one.name for one in chosen(["guard"])] == ["none", "guard"]


def test_a_twin_must_be_there(tmp_path: Path) -> None:
    conf = shutil.copytree(CONF, tmp_path / "conf")
    file = conf / "experiment" / "language_model" / "gpt_surge_x30_at_200.yaml"
    file.write_text(file.read_text().replace("{fault: null}", "{fuss: null}"))
    with pytest.raises(ValueError, match="gpt_surge_x30_at_200: there is no fuss"):
        load_settings(conf, names=["gpt_surge_x30_at_200"])


# Scoring


def result(nats: float, losses: Sequence[float] = (), **options: Any) -> Result:
    return Result("made", 0, "made", [(10, 9.0), (20, nats), (30, nats)], losses, **options)


def row(none: Result, twin: Result, name: str = "gpt_surge_x30_at_200", **results: Result) -> Row:
    return Row(SETTINGS[name], [twin], {"none": [none], **{key: [one] for key, one in results.items()}})


@pytest.mark.parametrize(
    ("nats", "label"),
    [(2.0, "healthy"), (2.04, "healthy"), (2.07, "unsettled"), (2.2, "failing"), (math.nan, "failing")],
)
def test_a_setting_is_what_it_turns_out_to_be(nats: float, label: str) -> None:
    assert row(result(nats), result(2.0)).label == label


def test_nothing_counts_as_worse_than_a_model_that_has_learned_nothing() -> None:
    made = row(result(math.nan), result(2.0), clip=result(50.0), guard=result(2.5))
    assert made.cost("none") == made.cost("clip") == pytest.approx(CHANCE - 2.0)
    assert made.cost("guard") == pytest.approx(0.5)


def test_the_loss_is_lost_where_it_leaves_the_twins_for_good() -> None:
    fine, spike, gone = [2.0] * 40, [2.0] * 10 + [6.0] + [2.0] * 29, [2.0] * 25 + [3.0] * 15
    alerted = result(2.0, alerts=[(23, "exploding", ""), (30, "exploding", "")])
    hurt = row(result(3.0, gone), result(2.0, fine), guard=alerted)
    assert hurt.lost == 25
    assert hurt.lead("guard") == 2
    assert hurt.delay("guard") == 23 - 200
    assert math.isnan(row(result(2.0, spike), result(2.0, fine)).lost)
    twice = row(result(3.0, gone, batches_a_step=0.5), result(2.0, fine))
    assert twice.lost == 50


def test_what_a_guard_says_is_held_against_the_twin() -> None:
    def untrue(nats: float, outcome: str) -> list[str]:
        return row(result(3.0), result(2.0), guard=result(nats, outcome=outcome)).untrue("guard")

    assert untrue(2.03, "repaired") == []
    assert untrue(2.08, "repaired") == ["repaired, +0.08"]
    assert untrue(2.08, "healthy") == []
    assert untrue(2.2, "healthy") == ["healthy, +0.20"]
    assert untrue(4.0, "unrepaired") == []


def test_a_guard_that_does_nothing_leaves_the_weights() -> None:
    made = row(result(2.0, weights="a"), result(2.0), guard=result(2.0, weights="a"), guard_and_clip=result(2.0))
    assert made.unchanged("guard") == 1
    assert made.unchanged("guard_and_clip") is None, "there is no clipped run to compare with"
    model = torch.nn.Linear(3, 2)
    before = digest_of(model)
    with torch.no_grad():
        model.weight[0, 0] = torch.nextafter(model.weight[0, 0], torch.tensor(9.0))
    assert digest_of(model) != before


def test_results_are_kept_whole(tmp_path: Path) -> None:
    kept = result(2.0, [1.0, 2.0], alerts=[(3, "exploding", "bad batch")], interventions=[(3, "SkipStep")], seconds=1.0)
    kept.write(tmp_path / "one.json")
    again = Result.read(tmp_path / "one.json")
    assert (again.nats, again.losses, again.alerts) == (2.0, (1.0, 2.0), ((3, "exploding", "bad batch"),))
    result(math.nan, [math.inf]).write(tmp_path / "two.json")
    lost = Result.read(tmp_path / "two.json")
    assert math.isnan(lost.nats)
    assert math.isnan(lost.losses[0])


def test_everything_can_be_shown(tmp_path: Path) -> None:
    rows = [
        row(result(3.0), result(2.0), guard=result(2.2, outcome="repaired", alerts=[(205, "exploding", "")])),
        row(result(2.0, weights="a"), result(2.0), "gpt", guard=result(2.0, weights="a", outcome="healthy")),
    ]
    text = document(rows, "made")
    assert "| `gpt_surge_x30_at_200` | `guard` | exploding 205 | 5 | – | – | repaired | repaired, +0.20 |" in text
    assert "| `gpt` | `guard` | – | – | – | – | healthy | – | 1/1 |" in text
    picture(rows, "made").savefig(tmp_path / "made.png")
    assert (tmp_path / "made.png").stat().st_size > 10_000
    assert "Language models" in document([], "nothing")


# AdaGC


def clipped(callback: AdaGC, norms: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The norms that are left of two tensors' gradients."""
    weights = [torch.nn.Parameter(torch.zeros(4)) for _ in range(2)]
    after = []
    for pair in norms:
        for weight, norm in zip(weights, pair, strict=True):
            weight.grad = torch.full((4,), norm / 2)
        callback.clip(weights, Regression(mlp(2, 2)), 0)
        after.append(tuple(float(weight.grad.norm()) for weight in weights if weight.grad is not None))
    return after  # type: ignore[return-value]


def test_adagc_clips_globally_first_and_then_each_tensor_by_its_own_average() -> None:
    callback = AdaGC(warmup=3)
    norms = [(3.0, 4.0), (0.3, 0.4), (0.2, 0.6), (10.0, 0.1), (0.1, 0.9)]
    after = clipped(callback, norms)
    assert after[0] == pytest.approx((0.6, 0.8), rel=1e-3)  # to a global norm of 1
    assert after[1:3] == [pytest.approx(norms[1]), pytest.approx(norms[2])]
    # The averages begin with the least norms of the warm-up, 0.2 and 0.4.
    assert after[3] == pytest.approx((1.05 * 0.2, 0.1), rel=1e-3)
    averages = (0.98 * 0.2 + 0.02 * 0.21, 0.98 * 0.4 + 0.02 * 0.1)
    assert after[4] == pytest.approx((0.1, 1.05 * averages[1]), rel=1e-3)


# The command


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two settings of thirty steps, one of them hurt."""
    conf = shutil.copytree(CONF, tmp_path / "conf")
    folder = conf / "experiment" / "language_model"
    for file in folder.glob("*.yaml"):
        if file.stem not in ("gpt_muon", "gpt_loss_x1e4_at_100", "llama_resumed"):
            file.unlink()
    small = "model: {depth: 1, width: 16, heads: 2}\ndata: {context: 8, batch_size: 4, steps: 30, limit: 20000}\n"
    small += "trainer: {max_steps: 30, val_check_interval: 10}\n"
    for name, more in (("gpt_loss_x1e4_at_100", "fault: {step: 10}\n"), ("llama_resumed", "resume_at: 12\n")):
        text = (folder / f"{name}.yaml").read_text().splitlines()
        kept = [line for line in text if not line.startswith(("resume_at", "fault:"))]
        fault = "fault: {step: 10, factor: 1e4, steps: 1}\n" if "loss" in name else more
        (folder / f"{name}.yaml").write_text("\n".join(kept) + f"\n{fault}{small}")
    muon = folder / "gpt_muon.yaml"
    muon.write_text(muon.read_text() + small.replace("max_steps: 30", "max_steps: 60"))
    monkeypatch.setattr("experiments.corpus.CONF", conf)
    return tmp_path


@pytest.mark.slow
def test_the_command_goes_on_from_what_is_there(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["language_model", "--split", "all", "--seeds", "0", "--workers", "1", "--folder", str(small / "runs")]
    assert main([*options, "--treatments", "guard_and_clip", "clip"]) == 0
    first = {path.name: path.stat().st_mtime_ns for path in (small / "runs").glob("*.json")}
    assert len(first) == 3 * 3 + 2, "three treatments each, and the twins of two"
    text = (small / "runs" / "language_models.md").read_text()
    assert "`guard_and_clip`" in text
    assert "`gpt_muon`" in text
    assert "`llama_resumed`" in text
    assert (small / "runs" / "language_models.png").stat().st_size > 10_000
    runs = [Result.read(path) for path in (small / "runs").glob("*.json")]
    assert not [run.error for run in runs if run.error]
    by_name = {(run.setting, run.treatment): run for run in runs}
    assert by_name["gpt_muon", "clip"].batches_a_step == 0.5
    assert by_name["gpt_muon", "clip"].weights == by_name["gpt_muon", "guard_and_clip"].weights
    assert by_name["gpt_muon", "none"].weights != by_name["gpt_muon", "clip"].weights
    assert len(by_name["llama_resumed", "clip"].losses) == 30, "stopped after 12, and 18 more"

    capsys.readouterr()
    assert main([*options, "--treatments", "guard_and_clip", "clip"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (small / "runs").glob("*.json")} == first
    assert "0 runs trained" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_setting_is_told_in_one_line(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["language_model", "--settings", "gtp", "--folder", str(small / "runs")]) == 2
    assert "there is no setting 'gtp'" in capsys.readouterr().err


def test_treatments_are_described() -> None:
    assert all(one.what.endswith(".") for one in TREATMENTS.values())
    assert OmegaConf.is_config(TREATMENTS["guard"].apply(SETTINGS["gpt"].config).guard.callback)


def test_halves_are_those_of_the_names() -> None:
    assert {half_of(f"made_{number}") for number in range(8)} == {"tune", "score"}
    assert SETTINGS["gpt"].split == half_of("gpt") == "score"
