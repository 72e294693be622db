"""What a guard is told to do, and in which order it does it."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch

from grad_callbacks import ClipNorm, GradientGuard, GradientMonitor, ReduceLR, Remedy, SkipStep
from tests.support.guarded_steps import spiked
from tests.support.helpers import Poisoned, Regression, fit, mlp


def test_escalation_follows_the_order_of_the_prescription() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1), ReduceLR(0.5)]})
    spiked(guard, factors=dict.fromkeys(range(15, 30), 1e3))
    assert [i.remedy for i in guard.interventions] == ["ClipNorm", "ReduceLR"]
    assert [a.severity for a in guard.alerts][:2] == ["warning", "critical"]


def test_what_clipping_absorbs_is_no_reason_to_escalate() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1), ReduceLR(0.5)]})
    spiked(guard, factors={15: 1e3, 16: 1e3})
    assert [i.remedy for i in guard.interventions] == ["ClipNorm"]
    assert [a.severity for a in guard.alerts] == ["warning", "critical"]


def test_plain_values_say_the_same_as_objects() -> None:
    plain = GradientGuard({"exploding": [{"ClipNorm": 0.1}, {"ReduceLR": {"factor": 0.5}}], "nonfinite": ["SkipStep"]})
    objects = GradientGuard({"exploding": [ClipNorm(0.1), ReduceLR(0.5)], "nonfinite": [SkipStep()]})
    factors = {12: math.nan, 15: 1e4, 16: 1e4}
    assert spiked(plain, factors).changes == spiked(objects, factors).changes
    assert plain.interventions == objects.interventions


def test_a_remedy_of_ones_own_is_one_class() -> None:
    class Halve(Remedy):
        on = False

        def engage(self, step: Any, evidence: Any) -> dict[str, Any]:
            self.on = True
            return {"evidence": sorted(evidence)}

        def act(self, step: Any) -> bool:
            if self.on:
                step.multiply(0.5)
            return self.on

        def state_dict(self) -> dict[str, Any]:
            return {"on": self.on}

        def load_state_dict(self, state: Any) -> None:
            self.on = state["on"]

    guard = GradientGuard({"exploding": [Halve()]})
    halved, plain = spiked(guard), spiked(GradientMonitor())
    assert halved.norms[15] == pytest.approx(plain.norms[15] / 2)
    assert guard.interventions[0].remedy == "Halve"


@pytest.mark.slow
def test_outliers_that_clipping_absorbs_do_not_lower_the_rate_for_good() -> None:
    guard = GradientGuard()
    spiked(guard, dict.fromkeys(range(30, 800, 50), 1e3), max_epochs=25)
    assert [i.remedy for i in guard.interventions] == ["ClipNorm"]
    assert {a.severity for a in guard.alerts} == {"warning"}


def test_clipping_cannot_mend_a_non_finite_gradient_and_leaves_it_to_the_next() -> None:
    guard = GradientGuard({"nonfinite": ["ClipNorm", "SkipStep"]})
    module = Poisoned(mlp(4, 8, 2), factors={10: math.nan})
    fit(module, guard)
    assert [i.remedy for i in guard.interventions] == ["SkipStep"]
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_guard_can_be_copied_and_pickled() -> None:
    guard = GradientGuard({"exploding": [ClipNorm(1.0)]})
    fit(Regression(mlp(4, 2)), guard)
    assert copy.deepcopy(guard).prescription.remedies.keys() == guard.prescription.remedies.keys()
    assert pickle.loads(pickle.dumps(GradientGuard())).alerts == []


@pytest.mark.parametrize(
    ("prescription", "message"),
    [
        ({"exploding": [{"ClipNorm": -1.0}]}, "max_norm must be a finite number above 0, got -1.0"),
        ({"exploding": ["ClipNrm"]}, "unknown remedy 'ClipNrm'"),
        ({"explode": ["ClipNorm"]}, "unknown alert kind 'explode'"),
    ],
)
def test_a_wrong_prescription_is_named(prescription: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientGuard(prescription)
