"""The doctor on real modules: what it finds, what it prescribes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grad_callbacks.doctor import Budget, Doctor, ImportedSource, search
from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.prescription import prescription
from grad_callbacks.doctor.search import Outcome

HOME = "tests.support.ill_modules"
STEPS = 120


def source(model: str = "DeepNet", **arguments: Any) -> ImportedSource:
    return ImportedSource(f"{HOME}.{model}", f"{HOME}.digits", arguments)


def cured(folder: Path, made: ImportedSource, says: list[str] | None = None, **budget: Any) -> Outcome:
    told = says if says is not None else []
    return Doctor(made, Budget(**{"steps": STEPS, **budget}), folder, say=told.append).search()


def test_saturated_activations_are_replaced_by_what_the_diagnosis_says_first(tmp_path: Path) -> None:
    found = cured(tmp_path, source(activation="Sigmoid", depth=7))
    assert (found.ill.verdict, found.ill.cause) == ("vanishing", "saturated activations")
    assert found.is_cured
    assert found.best is not None
    assert found.best.name == "ReLU"
    assert found.best.lines[0] == "`nn.Sigmoid()` -> `nn.ReLU()` at net.1, and 5 more"
    assert found.best.metrics["val/accuracy"] > 0.85 > 0.2 > found.ill.metrics["val/accuracy"]
    text = prescription(found, "here")
    assert "What to change:\n  `nn.Sigmoid()` -> `nn.ReLU()` at net.1" in text
    assert "val/accuracy 0." in text
    assert text.endswith("Report: here")


def test_a_rate_that_is_too_high_is_lowered(tmp_path: Path) -> None:
    says: list[str] = []
    found = cured(tmp_path, source(depth=4, lr=0.8), says)
    assert found.ill.cause == "learning rate too high"
    assert found.is_cured
    assert found.best is not None
    assert found.best.name.startswith("Learning rate / ")
    assert found.best.lines[0].startswith("lr=0.8 -> 0.0")
    assert says[0].startswith("as it is (120 steps")
    assert says[1].startswith("trial 1 of 8, Learning rate / ")
    assert says[1].endswith("; cured")


def test_a_softmax_in_front_of_the_cross_entropy_is_taken_away(tmp_path: Path) -> None:
    found = cured(tmp_path, source("DeadSoftmax", depth=3, lr=0.02), steps=200)
    assert found.ill.cause == "saturated output"
    assert found.is_cured
    assert found.best is not None
    assert found.best.lines[0] == "no Softmax in front of `cross_entropy`, which takes logits"


def test_a_healthy_training_is_left_as_it_is(tmp_path: Path) -> None:
    found = cured(tmp_path, source())
    assert found.is_healthy
    assert not found.tried
    assert found.best is None
    assert prescription(found).startswith("Nothing to prescribe: healthy in the first 120 steps; loss 2.")
    assert len(list(tmp_path.iterdir())) == 1, "the one training"


@pytest.mark.parametrize(
    ("spoiled", "why", "forbidden"),
    [
        ("is_trained", "the weights of net.0 and 5 more look trained or are frozen", ("ReLU", "initialisation")),
        ("is_tied", "some are tied (net.2.weight = net.4.weight)", ("initialisation",)),
        ("is_compiled", "the model is compiled", ("ReLU", "normalisation", "Residual")),
    ],
)
def test_what_must_not_be_touched_is_said(tmp_path: Path, spoiled: str, why: str, forbidden: tuple[str, ...]) -> None:
    says: list[str] = []
    found = cured(tmp_path, source(activation="Sigmoid", depth=7, **{spoiled: True}), says, trials=3, steps=40)
    assert not found.is_healthy
    assert any(why in line for line in says)
    assert why in prescription(found)
    assert found.tried
    assert not any(word in attempt.name for word in forbidden for attempt in found.tried)


def test_a_second_search_goes_on_where_the_first_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ill = source(activation="Sigmoid", depth=7)
    real, count = search.carry_out, 0

    def interrupted(*args: Any) -> Attempt:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(search, "carry_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cured(tmp_path, ill)
    assert len(list(tmp_path.glob("trial-*.json"))) == 1
    found = cured(tmp_path, ill)
    assert count == 3, "the training as it is was not repeated"
    assert found.is_cured
    again = cured(tmp_path, ill)
    assert count == 3
    assert [one.to_json() for one in again.tried] == [one.to_json() for one in found.tried]


def test_new_weights_are_there_before_anything_is_measured(tmp_path: Path) -> None:
    found = cured(tmp_path, source("Uniform", depth=6, lr=0.02))
    assert found.ill.cause == "weights too large"
    assert found.is_cured
    assert found.best is not None
    assert (found.best.name, found.best.alerts) == ("LSUV initialisation", 0)


def test_in_manual_optimization_health_alone_is_judged(tmp_path: Path) -> None:
    found = cured(tmp_path, source("Manual", activation="Sigmoid", depth=7), trials=2, steps=60)
    assert (found.ill.verdict, found.ill.curve) == ("vanishing", [])
    assert found.is_cured
    assert found.best is not None
    assert found.best.name == "ReLU"
    assert "loss unknown -> unknown" in prescription(found)


def test_other_settings_do_not_take_over_the_results_in_a_folder(tmp_path: Path) -> None:
    cured(tmp_path, source(), steps=10)
    cured(tmp_path, source(depth=3), steps=10)
    cured(tmp_path, source(), steps=11)
    assert len(list(tmp_path.glob("trial-*.json"))) == 3


def test_where_nothing_cures_pairs_are_tried_and_the_best_is_ranked_first(tmp_path: Path) -> None:
    # 12 steps are too few for anything to count as cured.
    found = cured(tmp_path, source(activation="Sigmoid", depth=7), steps=12, trials=4)
    assert not found.is_cured
    names = [attempt.name for attempt in found.tried]
    assert len(names) == len(set(names)) == 4
    assert [" + " in name for name in names] == [False, False, False, True]
    text = prescription(found)
    assert "Trials, the best first:" in text
    assert "Cost: 4 trials, 5 trainings of 12 steps" in text


def test_the_cure_is_confirmed_on_other_seeds(tmp_path: Path) -> None:
    found = cured(tmp_path, source(depth=4, lr=0.8), seeds=2)
    [(before, after)] = found.others
    assert before.seed == after.seed == 1
    assert after.name == found.best.name if found.best else False
    assert "seed 1: loss" in prescription(found)


def test_a_training_that_cannot_begin_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the training fails before its first step: KeyError: 'labels'"):
        cured(tmp_path, source("Broken"))


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"steps": 0}, {"minutes": 0.0}, {"workers": 0}])
def test_a_budget_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Budget(**wrong)


@pytest.mark.slow
def test_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    ill = source(activation="Sigmoid", depth=7)
    alone, together = (cured(tmp_path / str(n), ill, steps=30, trials=3, workers=n) for n in (1, 2))
    assert {one.name: one.ended for one in alone.tried} == {one.name: one.ended for one in together.tried}
