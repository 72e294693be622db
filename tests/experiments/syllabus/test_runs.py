"""Settings of the syllabus: composed, trained, measured without a trace, resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.corpus import CONF
from experiments.corpus.scenarios import configs
from experiments.run import run
from experiments.settings import ConfigError
from experiments.syllabus.claims import DEEP, DEPTHS, Setting, all_settings, cures_of, deep_setting
from experiments.syllabus.course import Course
from experiments.syllabus.cures import CURES
from experiments.syllabus.problems import PROBLEMS
from experiments.syllabus.runs import Job, Outcome, composed, jobs, train


def test_every_problem_is_a_config_and_every_config_a_problem() -> None:
    files = sorted(path.stem for path in (CONF / "experiment" / "syllabus").glob("*.yaml"))
    assert files == sorted(PROBLEMS)


def test_no_setting_is_there_twice_and_both_subsets_have_their_problems() -> None:
    everything, quick = all_settings(), all_settings("quick")
    assert len(set(everything)) == len(everything) == len({setting.name for setting in everything})
    assert set(quick) < set(everything)
    assert {Setting(name, guard=guard) for name in PROBLEMS for guard in ("monitor", "full")} <= set(everything)
    assert {deep_setting(net, depth) for net in DEEP for depth in DEPTHS} <= set(everything)
    assert any(not setting.biases for setting in everything)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=list(PROBLEMS))
def test_every_cure_that_is_tried_makes_sense_there(problem: object) -> None:
    assert isinstance(problem, type(PROBLEMS["sigmoid"]))
    for cure in cures_of(problem):
        assert isinstance(CURES[cure].overrides(problem), list)


@pytest.mark.parametrize(
    ("cure", "problem", "reason"),
    [
        ("batch_norm", "recurrent_forgets", "what is normal at one step of a sequence is not at the next"),
        ("relu", "recurrent_forgets", "part of its cell"),
        ("fixup", "sigmoid", "for residual branches"),
        ("layer_norm", "transformer_rate", "layer norms of its own"),
        ("gru", "sigmoid", "it is not for nets of the kind mlp"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_with_the_reason(cure: str, problem: str, reason: str) -> None:
    with configs(CONF), pytest.raises(ConfigError, match=reason):
        composed(Setting(problem, (cure,)), 0)


def test_a_cure_with_an_initialisation_of_its_own_leaves_nothing_of_the_problems() -> None:
    with configs(CONF):
        ill = composed(Setting("tanh_saturated"), 0)
        cured = composed(Setting("tanh_saturated", ("init_he",)), 0)
        slow = composed(Setting("high_rate", ("low_rate",)), 0)
        rate = composed(Setting("high_rate"), 0).optimizer.lr
    assert ill.init.bias == 6.0
    assert "bias" not in cured.init
    assert slow.optimizer.lr == pytest.approx(rate / 10)


def test_measuring_leaves_no_trace_in_the_run() -> None:
    with configs(CONF):
        cfg = composed(Setting("recurrent_forgets", ("gru",)), 0)
    cfg.trainer.max_steps = 5
    first, second = Course(), Course()
    monitors = [run(cfg, callbacks=callbacks).monitor for callbacks in ([], [first], [second])]
    histories = [monitor.history() for monitor in monitors if monitor is not None]
    assert histories[0].equals(histories[1])
    assert first.losses == second.losses
    assert len(first.losses) == len(first.norms) == 5


def test_a_run_is_written_whole_and_found_again(tmp_path: Path) -> None:
    setting = Setting("tanh_saturated", ("clip_value",))
    (found,) = jobs([setting], [3], tmp_path)
    train(found)
    assert [path.name for path in tmp_path.iterdir()] == [found.path.name]
    outcome = Outcome.read(found.path)
    assert (outcome.setting, outcome.seed) == (setting.name, 3)
    assert outcome.quality < 0.3
    assert outcome.verdict == "vanishing"
    assert outcome.alert["kind"] == "vanishing"
    assert outcome.measured["error_ratio"] < 1e-3
    assert outcome.measured["moved_first"] < 1e-4 < outcome.measured["moved_last"]
    assert jobs([setting], [3], tmp_path) == [found]


def test_a_file_is_named_by_what_decides_the_run(tmp_path: Path) -> None:
    settings = [Setting("sigmoid"), Setting("sigmoid", biases=False), Setting("sigmoid", ("low_rate",))]
    keys = [job.path.stem.rpartition("-")[2] for job in jobs(settings, [0], tmp_path)]
    assert len(set(keys)) == 3
    assert isinstance(jobs(settings, [0, 1], tmp_path)[3], Job)
    assert jobs(settings, [0, 1], tmp_path)[3].seed == 1, "seed by seed: a run that is stopped has whole seeds"


@pytest.mark.slow
def test_every_setting_takes_a_step() -> None:
    with configs(CONF):
        chosen = [(setting, composed(setting, 0)) for setting in all_settings()]
    without_loss = set()
    for setting, cfg in chosen:
        cfg.trainer.max_steps = 1
        course = Course()
        run(cfg, callbacks=[course])
        if not course.measured()["loss_first"] > 0:
            without_loss.add(setting.problem)
    assert without_loss == {"chain_ten"}, "ten to the power of fifty is beyond float32"
