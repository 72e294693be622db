"""What the rule for exploding gradients says of readings made by hand."""

from __future__ import annotations

from typing import Any

from grad_callbacks import Alert, Exploding
from tests.support.helpers import reading


def judged(rule: Exploding, *events: dict[str, Any], calm: int = 30) -> list[Alert]:
    """Alerts after ``calm`` healthy readings of norm 1 and then ``events``."""
    healthy = [{"norms": [0.6, 0.8], "displacement": 0.01}] * calm
    alerts = [rule.judge(reading(step=i, **event)) for i, event in enumerate([*healthy, *events])]
    return [alert for alert in alerts if alert is not None]
