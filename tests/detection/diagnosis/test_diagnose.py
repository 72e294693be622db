"""What a diagnosis says where little is known, where something fails, and where it is asked late."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks import Alert
from grad_callbacks.detection.diagnosis import CAUSES, Case, diagnose
from tests.support.diagnosis_cases import (
    Deep,
    Run,
    Transformer,
    classes,
    trained,
    xavier,
)


def test_the_alert_comes_back_as_it_was_where_nothing_is_known() -> None:
    run = trained().stop_at(classes(40))
    alert = run.alert("nonfinite")
    assert diagnose(alert, Case(run.model)) == alert


def test_an_alert_of_an_unknown_kind_keeps_its_own_cause() -> None:
    run = trained().stop_at(classes(40))
    for alert in (run.alert("moonstruck"), replace(run.alert("moonstruck"), cause="bad batch")):
        assert diagnose(alert, run.case()) is alert


def test_a_case_that_breaks_every_probe_breaks_no_training() -> None:
    class Hostile(nn.Linear):
        def named_modules(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no")

    alert = Alert("exploding", "critical", 3, (), "seen", {}, "a guess", "look")
    assert diagnose(alert, Case(Hostile(2, 2))) == alert


def test_a_replay_that_fails_leaves_the_rest() -> None:
    def fail() -> Tensor:
        raise RuntimeError("out of memory")

    run = Run(Deep(8, nn.Sigmoid, xavier)).stop_at(classes())
    assert diagnose(run.alert("vanishing"), run.case(replay=fail)).cause == "saturated activations"


@pytest.mark.parametrize("kind", ["vanishing", "exploding", "nonfinite"])
def test_late_or_blind_it_says_what_it_can(kind: Any) -> None:
    run = trained().stop_at(classes(40))
    run.optimizer.step()
    for options in ({"is_late": True}, {"is_late": True, "replay": None}, {"replay": None, "optimizer": None}):
        found = diagnose(run.alert(kind), run.case(**options))
        assert found.cause in (*CAUSES, "a guess")
    assert diagnose(run.alert(kind), Case(run.model)).cause in (*CAUSES, "a guess")


def test_a_step_that_was_taken_is_seen_in_its_own_loss() -> None:
    run = trained()
    run.optimizer.param_groups[0]["lr"] = 5.0
    run.stop_at(classes(99)).optimizer.step()
    found = diagnose(run.alert("exploding"), run.case(is_late=True))
    assert found.cause == "learning rate too high"
    assert found.evidence["loss_ratio_of_step"] > 2


def test_it_is_the_same_every_time() -> None:
    model = Transformer()
    run = Run(model, optimizer=torch.optim.Adam(model.parameters(), lr=0.5)).stop_at(classes(time=8))
    told = {str(diagnose(run.alert("exploding"), run.case()).to_dict()) for _ in range(3)}
    assert len(told) == 1
