"""What happened at one step."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks.alerts import Alert
from grad_callbacks.gradients import Reading
from grad_callbacks.interventions import Intervention
from grad_callbacks.trial import TrialResult


@dataclass(frozen=True)
class Outlook:
    """What happened at one step.

    Attributes:
        reading: The gradients before any remedy.
        alerts: What the rules said.
        interventions: What was switched on.
        trials: What came of trying out remedies before.
        norm_clipped: The global norm with which the step is taken, after remedies and the user's clipping.
        coefficient: ``norm_clipped`` over the measured norm; NaN for a non-finite gradient.
        lr_scale: The factor on the learning rate.
        lr_effective: The learning rate of the first parameter group, with the factor.
    """

    reading: Reading
    alerts: list[Alert]
    interventions: list[Intervention]
    norm_clipped: float
    coefficient: float
    lr_scale: float
    lr_effective: float
    trials: tuple[TrialResult, ...] = ()
