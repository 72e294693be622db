"""Following an intervention: what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.remedies import CLIPS, AdaptiveStep

TRIAL = 20  # readings after which it is said what came of an intervention, if all is calm by then
PATIENCE = 40  # readings after which it has not helped; an alarm lasts for 20
STUBBORN = 10  # non-finite readings in a row after which skipping alone will not do
WORSE = 2.0  # times the loss before the alert
FLED = 5  # readings after which a loss that has doubled will not come back by itself
NEW_NORMAL = 12  # the same where a baseline must settle first
WATCH = 100  # readings in which what was learned may be lost because of the trouble that was treated
PASSING = ("", "bad batch", "missing warm-up")  # causes that go away
LEARNED = 0.3  # of the first loss that had been gained, so that there is something to lose
LOST = (0.8, 3.0)  # of where the loss began: all that was learned is gone, and no other scale of the loss has come
LITTLE = 0.25  # of the loss before the alert: what is learned in so many readings where all is well is more
CALM = 200  # calm readings after which a remedy is withdrawn


@dataclass
class Treatment:
    """An intervention that is under observation.

    Attributes:
        made: The intervention; what came of it is written into its detail.
        alert: What it answers.
        key: The list that answers the alert.
        place: Of the remedy in that list.
        age: Readings since.
        calm: Readings in a row without trouble of its kind.
        loss: Level of the loss before the alert; NaN if unknown.
        is_open: Nothing has been said yet of what came of it.
        is_on: The remedy has not been withdrawn.
        watches_the_loss: It is not known yet that all that was learned is lost in spite of it.
    """

    made: Intervention
    alert: Alert
    key: str
    place: int
    age: int = 0
    calm: int = 0
    loss: float = math.nan
    is_open: bool = True
    is_on: bool = True
    watches_the_loss: bool = True

    def suffers(self, course: LossLevel) -> bool:
        """True if the loss is far above what it was before the alert, or at the start if that is not known."""
        return course.level > _far_above(self._before(course), course)

    def is_in_vain(self, alert: Alert, course: LossLevel) -> bool:
        """True if the rate is too high all the same, as alarms in a row tell, and little was learned for long."""
        if alert.severity != "critical" or alert.cause != "learning rate too high" or self.age < PATIENCE:
            return False
        before = self._before(course)
        return course.level > before - LITTLE * abs(before)

    def has_fled(self, reading: Reading, course: LossLevel) -> bool:
        """True if it suffers, and the loss does not come down by itself."""
        return self.suffers(course) and not self._may_come_back(reading, course)

    def is_lost(self, reading: Reading, course: LossLevel) -> bool:
        """True if the loss is back where the run began, on the scale it had there, and was far below before."""
        if self.age < FLED or self._may_come_back(reading, course):
            return False
        is_back = course.gained > LEARNED and LOST[0] < course.risen < LOST[1]
        return is_back and (math.isnan(self.loss) or self.suffers(course))

    def has_died(self, active: Sequence[str]) -> bool:
        """True if what was treated has left a net behind that no gradient comes through."""
        return self.made.alert_kind != "vanishing" and "vanishing" in active

    @property
    def clips(self) -> bool:
        """True if its remedy bounds every step, however large the gradient."""
        return self.made.remedy in [*(cls.__name__ for cls in CLIPS), AdaptiveStep.__name__]

    def is_free_of_the_rate(self, alert: Alert) -> bool:
        """True if its remedy takes steps that do not depend on the rate, which is to blame."""
        return self.made.remedy == AdaptiveStep.__name__ and alert.cause == "learning rate too high"

    def _before(self, course: LossLevel) -> float:
        """Level of the loss before the alert; that of the start if it is not known."""
        return self.loss if math.isfinite(self.loss) else course.scale

    def _may_come_back(self, reading: Reading, course: LossLevel) -> bool:
        """True for a while if the loss has not gone far and comes down: it has learned more than a snapshot knows."""
        return self.age < TRIAL and reading.loss < min(course.level, LOST[1] * course.scale)

    def conclude(self, is_calm: bool, course: LossLevel) -> str:
        """Say what came of it: ``"helped"``, ``"no change"`` or ``"worse"``."""
        self.is_open = False
        was_there = math.isfinite(self.loss)
        is_worse = was_there and not course.level <= _far_above(self.loss, course)
        outcome = "worse" if is_worse else "helped" if is_calm else "no change"
        self.made.detail["outcome"] = outcome
        for name, value in (("loss_before", self.loss), ("loss_after", course.level)):
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
    def of(cls, state: Mapping[str, Any], made: Intervention) -> Treatment:
        """Rebuild a treatment from :meth:`state_dict`."""
        rest = {
            key: state[key] for key in ("key", "place", "age", "calm", "loss", "is_open", "is_on", "watches_the_loss")
        }
        return cls(made, Alert.from_dict(state["alert"]), **rest)


def _far_above(before: float, course: LossLevel) -> float:
    """Twice the loss before, and a twentieth of its first size more: small losses double by chance."""
    margin = 0.05 * course.scale if math.isfinite(course.scale) else 0.0
    return before + max((WORSE - 1) * abs(before), margin)
