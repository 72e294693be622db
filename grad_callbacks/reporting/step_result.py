"""What happened at one step."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks.events import Alert, Intervention, TrialResult
from grad_callbacks.measurement import Reading
from grad_callbacks.treatment.step.pending_step import PendingStep


@dataclass(slots=True)
class StepResult:
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

    @classmethod
    def of_quiet(cls, reading: Reading, rate: float) -> StepResult:
        """Tell of a step in which nothing is wrong and nothing is on.

        Args:
            reading: Its reading.
            rate: The first group's learning rate.
        """
        norm = reading.norm
        clipped = min(norm, reading.clip_at) if reading.clip_at else norm
        return cls(reading, [], [], clipped, clipped / norm if norm > 0 else 1.0, 1.0, rate)

    @classmethod
    def of(
        cls,
        step: PendingStep,
        norm: float,
        alerts: list[Alert],
        interventions: list[Intervention],
        trials: tuple[TrialResult, ...],
        lr_scale: float,
        rate: float,
    ) -> StepResult:
        """Tell what happened at a step that has been judged.

        Args:
            step: The step.
            norm: The global norm after all remedies.
            alerts: What the rules said.
            interventions: What was switched on.
            trials: What was tried out before.
            lr_scale: The factor on the learning rate now, which is the step's unless it was taken before.
            rate: The first group's learning rate now, with the factor.
        """
        reading = step.reading
        clipped = min(norm, reading.clip_at) if reading.clip_at else norm
        return cls(
            reading=reading,
            alerts=alerts,
            interventions=interventions,
            norm_clipped=clipped,
            coefficient=clipped / reading.norm if reading.norm > 0 else 1.0,
            lr_scale=step.lr_scale if step.on_device else lr_scale,
            lr_effective=step.incoming.plan.rates[0] if step.on_device else rate,
            trials=trials,
        )
