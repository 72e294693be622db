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
