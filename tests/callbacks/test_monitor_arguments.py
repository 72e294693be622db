"""What a monitor is given, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import SingleDeviceStrategy

from grad_callbacks import Alert, Exploding, GradientMonitor, Rule
from tests.support.helpers import Regression, fit, mlp


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be a whole number of at least 1, got 0"),
        ({"every_n_steps": -1}, "every_n_steps"),
        ({"every_n_steps": 2.5}, "every_n_steps"),
        (
            {"rules": ["Explodng"]},
            "unknown rule 'Explodng'; known are Exploding, Outlier, SaturatedAttention, NonFinite",
        ),
        ({"rules": "Exploding"}, "rules must be a list"),
        ({"rules": [{"Exploding": {"factor": -5}}]}, "factor must be a finite number above 0, got -5"),
        ({"every_n_steps": True}, "every_n_steps must be a whole number of at least 1, got True"),
        ({"rules": [1]}, r"rules\[0\]: 1 is not a rule: give an object such as Exploding\(\), or its name"),
        ({"rules": ["Vanishing", Exploding]}, r"rules\[1\]: .* is not a rule"),
        ({"rules": 3}, r"rules must be a list of rules, such as \['Exploding'\], got 3"),
        ({"on_alert": "mail"}, "on_alert must be callable"),
        ({"on_alert": 3}, "on_alert must be callable with an alert, such as a function or a Notify, got 3"),
        ({"diagnose": "no"}, "diagnose must be True or False, got 'no'"),
        ({"diagnose": None}, "diagnose must be True or False, got None"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientMonitor(**arguments)


def test_rules_can_be_chosen_by_plain_values() -> None:
    monitor = GradientMonitor(rules=[{"Exploding": {"factor": 3.0}}, "NonFinite"])
    assert [type(rule).__name__ for rule in monitor.rules] == ["Exploding", "NonFinite"]
    assert isinstance(monitor.rules[0], Exploding)
    assert monitor.rules[0].factor == 3.0


def test_a_rule_of_ones_own_is_one_class() -> None:
    class Loud(Rule):
        kind = "exploding"
        active = False

        def judge(self, reading: Any) -> Alert | None:
            return Alert("exploding", "warning", reading.step, (), "", {}, "", "") if reading.norm > 0 else None

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            pass

    monitor = GradientMonitor(rules=[Loud()])
    fit(Regression(mlp(4, 2)), monitor)
    assert len(monitor.alerts) == 32


@pytest.mark.parametrize(
    ("name", "alternative"),
    [("DeepSpeedStrategy", "FSDPStrategy"), ("XLAStrategy", "on GPUs"), ("XLAFSDPStrategy", "FSDPStrategy")],
)
def test_what_hides_its_gradients_is_refused_at_the_start(name: str, alternative: str) -> None:
    # A stand-in with the real one's name, by which strategies are recognised.
    strategy = type(name, (SingleDeviceStrategy,), {})
    with pytest.raises(MisconfigurationException, match=f"does not work under {name}.*{alternative}"):
        fit(Regression(mlp(4, 2)), GradientMonitor(), strategy=strategy(device=torch.device("cpu")))
