from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch

from grad_callbacks import Alert, ClipNorm, OptimizerStep, Prescription, ReduceLR
from grad_callbacks.events import Severity
from tests.support.helpers import mlp, pending


def exploding(step: int = 0, severity: Severity = "critical") -> Alert:
    return Alert("exploding", severity, step, (), "", {"reference": 1.0}, "", "")


def step_to_take() -> OptimizerStep:
    model = mlp(2, 2)
    for p in model.parameters():
        p.grad = torch.full_like(p, 100.0)
    return pending(model)


def test_each_alert_gets_the_next_remedy_that_has_something_to_give() -> None:
    prescription = Prescription({"exploding": [ClipNorm(1.0), ReduceLR(0.1, floor=0.01)]})
    step = step_to_take()
    answers = [prescription.answer(exploding(i), step) for i in range(5)]
    assert [answer and answer.remedy for answer in answers] == ["ClipNorm", "ReduceLR", "ReduceLR", None, None]
    assert [answer.step for answer in answers if answer] == [0, 1, 2]


def test_a_warning_is_no_reason_to_escalate() -> None:
    prescription, step = Prescription({"exploding": [ClipNorm(1.0), ReduceLR(0.1)]}), step_to_take()
    answers = [prescription.answer(exploding(i, "warning"), step) for i in range(3)]
    assert [answer and answer.remedy for answer in answers] == ["ClipNorm", None, None]


def test_a_remedy_that_is_left_out_is_passed_over() -> None:
    prescription = Prescription({"exploding": [ClipNorm(1.0), ReduceLR(0.1)]})
    prescription.leave_out("clips", why="a Trainer clips")
    answer = prescription.answer(exploding(severity="warning"), step_to_take())
    assert answer is not None
    assert answer.remedy == "ReduceLR"


def test_kinds_that_are_left_out_get_no_remedy() -> None:
    assert Prescription({"nonfinite": ["SkipStep"]}).answer(exploding(), step_to_take()) is None


def test_presets_are_plans_by_name() -> None:
    assert not any(Prescription("observe").remedies.values())
    assert [type(r).__name__ for r in Prescription("gentle").remedies["exploding"]] == ["ClipNorm", "ReduceLR"]
    assert Prescription("gentle").remedies["vanishing"] == []
    assert [type(r).__name__ for r in Prescription().remedies["vanishing"]] == ["Reinitialize", "AdaptiveStep"]


def test_a_cause_may_have_a_list_of_its_own() -> None:
    prescription = Prescription({"exploding": ["ClipNorm"], "exploding: learning rate too high": [ReduceLR(0.5)]})
    step, alert = step_to_take(), replace(exploding(), cause="learning rate too high")
    answers = [prescription.answer(a, step) for a in (alert, exploding(1))]
    assert [answer and answer.remedy for answer in answers] == ["ReduceLR", "ClipNorm"]


def test_what_is_written_alike_in_two_lists_is_one_remedy() -> None:
    prescription = Prescription({"exploding": [{"ClipNorm": 1.0}], "exploding: bad batch": [{"ClipNorm": 1.0}]})
    step = step_to_take()
    prescription.answer(exploding(), step)
    assert prescription.answer(replace(exploding(1), cause="bad batch"), step) is None
    assert list(prescription.act(step)) == [("exploding", "ClipNorm")]


def test_remedies_act_in_the_step_they_are_switched_on() -> None:
    prescription, step = Prescription({"exploding": [{"ClipNorm": 1.0}]}), step_to_take()
    assert prescription.act(step) == {}
    prescription.answer(exploding(), step)
    assert {key: bool(did) for key, did in prescription.act(step).items()} == {("exploding", "ClipNorm"): True}
    assert step.norm == pytest.approx(1.0)


def test_what_one_remedy_did_is_not_undone_by_another_of_its_class() -> None:
    prescription, step = Prescription({"exploding": [{"ClipNorm": 1e-6}, {"ClipNorm": 1.0}]}), step_to_take()
    prescription.answer(exploding(), step)
    assert prescription.act(step)["exploding", "ClipNorm"]


def test_after_a_skip_nothing_else_acts() -> None:
    prescription, step = Prescription({"exploding": ["SkipStep", {"ClipNorm": 1.0}]}), step_to_take()
    prescription.answer(exploding(), step)
    assert prescription.act(step) == {("exploding", "SkipStep"): True}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"explode": []}, "unknown alert kind 'explode'; known are vanishing, exploding, nonfinite"),
        ({"exploding": "ClipNorm"}, "must be a list of remedies, got 'ClipNorm'"),
        ({"exploding": {"ClipNorm": 1.0}}, "must be a list of remedies"),
        ({"exploding": ["ClipNrm"]}, "unknown remedy 'ClipNrm'"),
        ({"vanishing": ["AdaptiveStep"]}, "'vanishing'.* AdaptiveStep only supplements another remedy"),
        ({"exploding": ["AdaptiveStep", {"Reinitialize": {"beside": True}}]}, "AdaptiveStep only supplements"),
        (
            {"exploding": ["ClipNorm", {"Reinitialize": {"beside": True}}]},
            "beside=True only supplements a remedy that may go back to the weights",
        ),
        ("fully", "prescription 'fully' is unknown; presets are observe, gentle, full"),
        (3, "prescription must map kinds of alert"),
        ({1: 2}, "prescription must map kinds of alert such as 'exploding' to remedies, got the key 1"),
        ({"exploding": 3}, "must be a list of remedies, got 3"),
        ({"exploding": [3]}, r"prescription\['exploding'\]: 3 is not a remedy"),
        ({"explodng": []}, "unknown alert kind 'explodng'.*did you mean 'exploding'"),
        ({"exploding: bad bach": []}, r"\['exploding: bad bach'\] names an unknown cause.*did you mean 'bad batch'"),
        ("ful", "did you mean 'full'"),
    ],
)
def test_a_wrong_plan_is_named(plan: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prescription(plan)


class Own(ClipNorm):
    """A remedy of the user's own that may go back to the start."""

    may_reach_start = True


@pytest.mark.parametrize("other", ["Rollback", "RescaleInputs", Own()])
def test_new_weights_may_stand_beside_all_that_may_go_back(other: Any) -> None:
    assert len(Prescription({"exploding": [other, {"Reinitialize": {"beside": True}}]}).remedies["exploding"]) == 2


def test_a_remedy_of_ones_own_that_stays_is_nothing_to_replace_the_weights_of_the_start_after() -> None:
    class Stays(ClipNorm):
        """Never goes back."""

    with pytest.raises(ValueError, match="may_reach_start"):
        Prescription({"exploding": [Stays(), {"Reinitialize": {"beside": True}}]})


def test_an_unknown_trait_is_refused() -> None:
    with pytest.raises(ValueError, match="remedies have no trait 'clip'; known are clips, "):
        Prescription().leave_out("clip", why="")


def test_a_space_after_the_kind_may_be_missing() -> None:
    assert "exploding: bad batch" in Prescription({"exploding:bad batch": ["ClipNorm"]}).remedies


def test_a_prescription_can_be_copied_and_pickled() -> None:
    prescription, step = Prescription({"exploding": [ClipNorm(1.0), ReduceLR(0.1)]}), step_to_take()
    prescription.leave_out("rewinds", why="")
    prescription.answer(exploding(), step)
    for other in (copy.deepcopy(prescription), pickle.loads(pickle.dumps(prescription))):
        assert other.state_dict() == prescription.state_dict()
        assert other.left_out == ("rewinds",)
        answer = other.answer(exploding(1), step)
        assert answer is not None
        assert answer.remedy == "ReduceLR"


def test_a_state_of_another_plan_is_refused() -> None:
    state = Prescription({"exploding": ["ClipNorm"]}).state_dict()
    with pytest.raises(ValueError, match=r"different remedies for .*resume with those that were saved"):
        Prescription().load_state_dict(state)
