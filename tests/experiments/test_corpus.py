"""The scenarios of a corpus, and how their runs are made in processes of their own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from experiments.corpus import Recording, Scenario, describe, load_scenarios, quick
from experiments.corpus import with_references as referenced
from experiments.corpus.making import make_recording, record_all
from experiments.corpus.scenarios import configs
from tests.support.processes import ForkServer, wait_until


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
    worker = int(maker.said.split()[0])  # a warning of its resource tracker may follow
    assert wait_until(lambda: not _runs(worker), 30)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # dead, and nobody has asked for its exit status


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


def test_a_scenario_is_recorded_from_its_file(tiny_corpus: Path) -> None:
    with configs(tiny_corpus):
        recording = make_recording("bad", 1)
    assert (recording.name, recording.steps) == ("bad/1", 60)
    assert recording.alerts[0].kind == "vanishing"
