"""What a rule says when something is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["vanishing", "exploding", "nonfinite"]
Severity = Literal["warning", "critical"]
Verdict = Literal["healthy", "vanishing", "exploding", "nonfinite"]
Outcome = Literal["healthy", "repaired", "unrepaired"]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Alert:
    """One finding about the gradients of one optimizer.

    Attributes:
        kind: ``"vanishing"``, ``"exploding"`` or ``"nonfinite"``.
        severity: ``"warning"`` for a single event, ``"critical"`` for a lasting or irreversible one.
        step: The step of the reading that raised it (``trainer.global_step`` under Lightning).
        layers: Names of the layers concerned, in the order the forward pass runs them.
        message: One sentence: what was seen, and against what limit.
        evidence: The numbers behind the message.
        cause: The likely cause.
        advice: What to change, most effective first.
        optimizer: Index of the optimizer whose gradients were read.
    """

    kind: Kind
    severity: Severity
    step: int
    layers: tuple[str, ...]
    message: str
    evidence: dict[str, float]
    cause: str
    advice: str
    optimizer: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a checkpoint or a JSON file can hold."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Alert:
        """Rebuild an alert from :meth:`to_dict`."""
        return cls(**{**data, "layers": tuple(data["layers"])})


def leading(alerts: Sequence[Alert]) -> Alert:
    """Return the alert that tells best what was wrong: the first critical one of the first kind, or else the first.

    A single spike may be a bad batch; when it becomes critical the cause is known better.

    Args:
        alerts: In the order they were raised, at least one.
    """
    critical = (alert for alert in alerts if alert.kind == alerts[0].kind and alert.severity == "critical")
    return next(critical, alerts[0])
