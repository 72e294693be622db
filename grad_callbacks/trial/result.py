"""What came of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from grad_callbacks.alerts import Kind

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


def winner_of(scores: Mapping[str, float], margin: float, bearable: float = math.nan) -> str:
    """Return the first name whose score is within ``margin`` of the best; an empty one if no score is finite.

    Args:
        scores: The least invasive first.
        margin: Share of the best score.
        bearable: A score of no remedy that needs none, however well others do.
    """
    finite = {name: score for name, score in scores.items() if math.isfinite(score)}
    if not finite:
        return ""
    if finite.get(NONE, math.inf) <= bearable:
        return NONE
    best = min(finite.values())
    return next(name for name, score in finite.items() if score <= best + margin * abs(best))
