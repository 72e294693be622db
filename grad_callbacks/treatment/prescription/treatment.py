"""One intervention under observation, and what the loss says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grad_callbacks.detection.rules  # noqa: F401  # declares the built-in kinds
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.events import Alert, Intervention, kind_named
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.loss_level import LOSS_LEVEL, LossLevel
from grad_callbacks.treatment.remedies import Remedy


@dataclass(frozen=True)
class TreatmentThresholds(Thresholds):
    """The numbers that decide what came of an intervention."""

    worse: float = threshold(2.0, "a loss this far up is worse", unit="x loss before the alert", source="not measured")
    worse_margin: float = threshold(
        0.05,
        "and at least this far above it: small losses double by chance",
        unit="x scale of the first losses",
        source="not measured",
    )
    passing: int = threshold(
        10,
        "readings after which a loss that has doubled, or numbers that are not finite, do not pass by themselves",
        unit="readings",
        source="not measured",
    )
    lost: tuple[float, float] = threshold(
        (0.8, 3.0),
        "a loss between these, and far above what it was, has lost all that was learned; above, it has another scale",
        unit="x scale of the first losses",
        source="not measured",
    )
    calm: int = threshold(
        200, "calm readings after which a remedy is withdrawn", unit="readings", source="not measured"
    )


LIMITS = TreatmentThresholds()
TRIAL = SPANS.recent  # readings after which an outcome is given if all is calm by then
PATIENCE = TRIAL + SPANS.recent  # the same where it is not: once the alarm that was answered has ended
RATE_TOO_HIGH = "learning rate too high"
PASSING = ("", "bad batch", "missing warm-up")  # causes that go away


@dataclass
class Treatment:
    """An intervention under observation.

    Attributes:
        made: The intervention; what came of it is written into its detail.
        alert: What it answers.
        remedy: The remedy that was switched on.
        key: The list that answers the alert.
        place: Of the remedy in that list.
        age: Readings since.
        calm: Readings in a row without an alarm of its kind.
        loss: Level of the loss before the alert; NaN if unknown.
        is_open: It has no outcome yet.
        is_on: The remedy has not been withdrawn.
        watches_the_loss: It may still turn out that all that was learned is lost in spite of it.
    """

    made: Intervention
    alert: Alert
    remedy: Remedy
    key: str
    place: int
    age: int = 0
    calm: int = 0
    loss: float = math.nan
    is_open: bool = True
    is_on: bool = True
    watches_the_loss: bool = True

    def suffers(self, loss_level: LossLevel) -> bool:
        """True if the loss is far above what it was before the alert, or at the start if that is not known."""
        return loss_level.level > _far_above(self._before(loss_level), loss_level)

    def is_in_vain(self, alert: Alert, loss_level: LossLevel) -> bool:
        """True if alarms in a row still blame the learning rate, and nothing was learned for long."""
        if alert.severity != "critical" or alert.cause != RATE_TOO_HIGH or self.age < PATIENCE:
            return False
        return loss_level.level > self._before(loss_level)

    def has_fled(self, reading: Reading, loss_level: LossLevel) -> bool:
        """True if it suffers, and the loss does not come down by itself."""
        return self.suffers(loss_level) and not self._may_come_back(reading, loss_level)

    def is_lost(self, reading: Reading, loss_level: LossLevel) -> bool:
        """True if the loss is back where the run began, was far below before, and does not come down by itself."""
        lowest, highest = LIMITS.lost
        has_lost = loss_level.gained > LOSS_LEVEL.learned and lowest < loss_level.risen < highest
        return self.age >= LIMITS.passing and has_lost and self.has_fled(reading, loss_level)

    def has_died(self, active: Sequence[str]) -> bool:
        """True if the event has left another kind behind, as an explosion leaves a net that no gradient passes."""
        follows = any(kind_named(kind).may_follow_another for kind in active)
        return follows and not kind_named(self.made.alert_kind).may_follow_another

    def absorbs(self, alert: Alert) -> bool:
        """True if its remedy bounds the steps: by clipping, or by a step size that the blamed rate does not change."""
        if not self.is_on:
            return False
        if kind_named(self.made.alert_kind).is_bounded_by_clipping:
            return self.remedy.bounds_steps
        return self.remedy.sets_step_size and alert.cause == RATE_TOO_HIGH

    def goes_on_after(self, active: Sequence[str]) -> bool:
        """True if its kind is active still and calls for the next remedy.

        Single events may come again, and large gradients may be clipped for good.
        """
        kind = kind_named(self.made.alert_kind)
        is_bounded = kind.is_bounded_by_clipping and self.remedy.bounds_steps
        return kind.name in active and not kind.comes_singly and not is_bounded

    def is_stuck(self, reading: Reading, loss_level: LossLevel, is_near: bool, nonfinite: int) -> bool:
        """True if no step is finite any more, or the loss has fled: waiting for the end of the trial is a waste.

        Args:
            reading: The step's reading.
            loss_level: The level of the loss.
            is_near: The reading was alarming, or nearly.
            nonfinite: Non-finite readings in a row.
        """
        kind = kind_named(self.made.alert_kind)
        if kind.is_bounded_by_clipping:
            # Under adaptive optimizers a jump in the loss's scale looks alike until it is the new normal.
            patience = LIMITS.passing if math.isfinite(reading.displacement) else SPANS.recent
            return is_near and self.age >= patience and self.has_fled(reading, loss_level)
        if not kind.comes_singly or self.age < 2:
            return False
        bad_weights = reading.weight_norms is not None and not all(map(math.isfinite, reading.weight_norms))
        return nonfinite >= LIMITS.passing or (nonfinite > 0 and bad_weights)

    def _before(self, loss_level: LossLevel) -> float:
        """Level of the loss before the alert; that of the start if it is not known."""
        return self.loss if math.isfinite(self.loss) else loss_level.scale

    def _may_come_back(self, reading: Reading, loss_level: LossLevel) -> bool:
        """True for a while if the loss has not gone far and comes down: it has learned more than a snapshot knows."""
        highest = min(loss_level.level, LIMITS.lost[1] * loss_level.scale)
        return self.age < TRIAL and reading.loss < highest

    def conclude(self, is_calm: bool, loss_level: LossLevel) -> str:
        """Write down what came of it: ``"helped"``, ``"no change"`` or ``"worse"``."""
        self.is_open = False
        was_known = math.isfinite(self.loss)
        is_worse = was_known and not loss_level.level <= _far_above(self.loss, loss_level)
        outcome = "worse" if is_worse else "helped" if is_calm else "no change"
        self.made.detail["outcome"] = outcome
        for name, value in (("loss_before", self.loss), ("loss_after", loss_level.level)):
            if math.isfinite(value):
                self.made.detail[name] = value
        return outcome

    def state_dict(self, index: int) -> dict[str, Any]:
        """Return plain data; the intervention by its index in the record."""
        return {
            "made": index,
            "alert": self.alert.to_dict(),
            "key": self.key,
            "place": self.place,
            "age": self.age,
            "calm": self.calm,
            "loss": self.loss,
            "is_open": self.is_open,
            "is_on": self.is_on,
            "watches_the_loss": self.watches_the_loss,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], made: Intervention, remedy: Remedy) -> Treatment:
        """Rebuild a treatment from :meth:`state_dict`."""
        rest = {
            key: state[key] for key in ("key", "place", "age", "calm", "loss", "is_open", "is_on", "watches_the_loss")
        }
        return cls(made, Alert.from_dict(state["alert"]), remedy, **rest)


def _far_above(before: float, loss_level: LossLevel) -> float:
    """Twice the loss before, and a twentieth of its first size more: small losses double by chance."""
    margin = LIMITS.worse_margin * loss_level.scale if math.isfinite(loss_level.scale) else 0.0
    return before + max((LIMITS.worse - 1) * abs(before), margin)
