"""A finding: the likely cause of an alert, with the evidence for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from grad_callbacks.events import Alert, Evidence

Cause = Literal[
    "saturated activations",
    "dead units",
    "saturated output",
    "weights too small",
    "depth without normalisation or skips",
    "recurrence over many steps",
    "weights too large",
    "unscaled residual branches",
    "learning rate too high",
    "saturated attention",
    "missing warm-up",
    "bad batch",
    "inputs too large",
    "targets or loss too large",
    "unbounded exponent",
    "undefined operation",
    "16-bit overflow",
    "non-finite weights",
]

CAUSES: tuple[Cause, ...] = get_args(Cause)


@dataclass(frozen=True)
class Finding:
    """A cause with its evidence.

    Attributes:
        cause: One of :data:`CAUSES`.
        clause: What was found, as a clause without semicolons.
        advice: Remedies, most effective first, each with the line to change; an empty one is left out.
        evidence: The numbers; those that are not finite are left out of the alert.
    """

    cause: Cause
    clause: str
    advice: Sequence[str]
    evidence: Mapping[str, float] = field(default_factory=dict)

    def added_to(self, alert: Alert) -> Alert:
        """Return the alert with this finding."""
        finite = {name: float(value) for name, value in self.evidence.items() if math.isfinite(value)}
        return replace(
            alert,
            cause=self.cause,
            message=f"{alert.message}; {self.clause}",
            evidence=Evidence({**alert.evidence, **finite}),
            advice="; ".join(filter(None, self.advice)),
        )
