"""Where the training loss began, which tells whether anything was learned since."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

FIRST = 5  # losses that tell where a run began
LEARNED = 0.1  # of its size that a loss must have come down: more than what a head learns by its bias alone


class Beginning:
    """The first losses of a run, and how many there were until the first alert.

    Attributes:
        fed: Losses so far.
        before_alert: Losses before the first alert; None while there is none.
    """

    def __init__(self) -> None:
        self.fed = 0
        self.before_alert: int | None = None
        self._first: list[Tensor | float] = []

    def feed(self, outputs: object) -> None:
        """Note what ``training_step`` returned: a loss, or a mapping with one; anything else is passed over."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.fed += 1
            if len(self._first) < FIRST:
                self._first.append(loss.detach().clone())  # read only when asked for: reading waits for the device

    def mark(self) -> None:
        """Note the first alert."""
        self.before_alert = self.fed

    def has_learned(self, now: float) -> bool:
        """True if the loss is well below all of the first ones; also if nothing is known of them.

        Args:
            now: The present level of the loss.
        """
        known = [value for loss in self._first if math.isfinite(value := float(loss))]
        return not known or min(known) - now > LEARNED * abs(min(known))

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"fed": self.fed, "before_alert": self.before_alert, "first": [float(loss) for loss in self._first]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.fed, self.before_alert, self._first = state["fed"], state["before_alert"], list(state["first"])
