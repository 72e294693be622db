"""What the rooms exchange: alerts, interventions and the results of trials."""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Intervention:
    """One application of a remedy.

    Attributes:
        step: The step at which the remedy was switched on; it acts in that very step.
        remedy: The remedy's name, the name of its class.
        alert_kind: The kind of alert that it answers.
        detail: With what it was applied, in plain values. ``detail["steps"]`` counts the optimizer
            steps in which it has acted since.
        optimizer: Index of the optimizer it acts on.
    """

    step: int
    remedy: str
    alert_kind: Kind
    detail: dict[str, Any]
    optimizer: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a checkpoint or a JSON file can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Intervention:
        """Rebuild an intervention from :meth:`to_dict`."""
        return cls(**{**data, "detail": dict(data["detail"])})


NONE = "none"  # the name of the arm that applies no remedy


@dataclass(frozen=True)
class TrialResult:
    """What came of trying out remedies.

    Attributes:
        step: The step at which it was held.
        alert_kind: The kind of alert that was to be answered.
        winner: The name of what did best: a remedy's name, or ``"none"``; empty if nothing brought a finite loss.
        scores: For each arm its loss on the held-out batches after the last step; infinite if it was not finite. None
            comes first, then the prescription's remedies in their order, then the random one.
        losses: For each arm its training loss at each step.
        optimizer: Index of the optimizer.
    """

    step: int
    alert_kind: Kind
    winner: str
    scores: dict[str, float]
    losses: dict[str, list[float]]
    optimizer: int = 0

    @property
    def told(self) -> str:
        """The scores in words."""
        scores = self.scores.items()
        return ", ".join(
            f"{name} {score:.4g}" if math.isfinite(score) else f"{name} not finite" for name, score in scores
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a checkpoint can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialResult:
        """Rebuild a result from :meth:`to_dict`."""
        return cls(**data)
