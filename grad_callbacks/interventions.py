"""What a remedy did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from grad_callbacks.alerts import Kind


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
