from __future__ import annotations

import json

import pytest

from grad_callbacks import Alert
from grad_callbacks.events import leading


def alert(kind: str, severity: str, step: int = 0) -> Alert:
    return Alert(kind, severity, step, ("a", "b"), "seen", {"norm": 1.0}, "cause", "advice")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("story", "place"),
    [
        ([("exploding", "warning")], 0),
        ([("exploding", "warning"), ("exploding", "critical")], 1),
        ([("exploding", "warning"), ("nonfinite", "critical")], 0),
        ([("nonfinite", "critical"), ("exploding", "critical")], 0),
    ],
)
def test_the_first_kind_leads_in_its_critical_form(story: list[tuple[str, str]], place: int) -> None:
    alerts = [alert(kind, severity, step) for step, (kind, severity) in enumerate(story)]
    assert leading(alerts) is alerts[place]


def test_an_alert_survives_json() -> None:
    one = alert("exploding", "warning")
    assert Alert.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", ""),
        ("kind", ["x"]),
        ("severity", "serious"),
        ("layers", None),
        ("layers", (1, 2)),
        ("message", None),
        ("cause", ["a"]),
        ("evidence", {"reference": "x"}),
    ],
)
def test_an_alert_with_a_field_that_nothing_could_show_is_refused(field: str, value: object) -> None:
    sound = {"kind": "exploding", "severity": "warning", "step": 3, "layers": ("a",), "message": "m", "evidence": {}}
    with pytest.raises(ValueError, match=f"alert's {field} must be"):
        Alert(**{**sound, "cause": "c", "advice": "a", field: value})  # type: ignore[arg-type]


def test_evidence_is_a_dict_for_those_who_want_one() -> None:
    alert = Alert("exploding", "warning", 3, ("a",), "m", {"norm": 2.0}, "c", "a")
    assert json.loads(json.dumps(alert.evidence)) == {"norm": 2.0}
    assert alert.evidence | {"ratio": 3.0} == {"norm": 2.0, "ratio": 3.0}
    assert alert.evidence.reference is None
