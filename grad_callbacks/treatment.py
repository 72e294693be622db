"""Following an intervention: what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grad_callbacks.alerts import Alert
from grad_callbacks.interventions import Intervention

TRIAL = 20  # readings after which it is said what came of an intervention, if all is calm by then
PATIENCE = 40  # readings after which it has not helped; an alarm lasts for 20
STUBBORN = 10  # non-finite readings in a row after which skipping alone will not do
WORSE = 2.0  # times the loss before the alert
LOST = (0.8, 3.0)  # of where the loss began: all that was learned is gone, and no other scale of the loss has come
CALM = 200  # calm readings after which a remedy is withdrawn


@dataclass
class Treatment:
    """An intervention that is under observation.

    Attributes:
        made: The intervention; what came of it is written into its detail.
        alert: What it answers.
        place: Of the remedy in the list that answers the alert.
        age: Readings since.
        calm: Readings in a row without trouble of its kind.
        loss: Level of the loss before the alert; NaN if unknown.
        is_open: Nothing has been said yet of what came of it.
        is_on: The remedy has not been withdrawn.
    """

    made: Intervention
    alert: Alert
    place: int
    age: int = 0
    calm: int = 0
    loss: float = math.nan
    is_open: bool = True
    is_on: bool = True

    def conclude(self, is_calm: bool, loss: float) -> str:
        """Say what came of it: ``"helped"``, ``"no change"`` or ``"worse"``."""
        self.is_open = False
        was_there = math.isfinite(self.loss)
        is_worse = was_there and not loss <= self.loss + (WORSE - 1) * abs(self.loss)
        outcome = "worse" if is_worse else "helped" if is_calm else "no change"
        self.made.detail["outcome"] = outcome
        for name, value in (("loss_before", self.loss), ("loss_after", loss)):
            if math.isfinite(value):
                self.made.detail[name] = value
        return outcome

    def state_dict(self, index: int) -> dict[str, Any]:
        """Return plain data; the intervention by its index in the record."""
        return {
            "made": index,
            "alert": self.alert.to_dict(),
            "place": self.place,
            "age": self.age,
            "calm": self.calm,
            "loss": self.loss,
            "is_open": self.is_open,
            "is_on": self.is_on,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], made: Intervention) -> Treatment:
        """Rebuild a treatment from :meth:`state_dict`."""
        rest = {key: state[key] for key in ("place", "age", "calm", "loss", "is_open", "is_on")}
        return cls(made, Alert.from_dict(state["alert"]), **rest)
