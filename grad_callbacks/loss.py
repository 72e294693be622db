"""The training loss around the first alert, which tells whether a remedy helped."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from torch import Tensor

WINDOW = 20  # losses over which a level is taken


class LossTrack:
    """Compares the loss of the last steps with the loss just before the first alert.

    Attributes:
        before: Median of the last 20 finite losses before the first alert; NaN without an alert or a loss.
    """

    def __init__(self) -> None:
        self.before = math.nan
        self._recent: deque[Tensor | float] = deque(maxlen=WINDOW)

    def feed(self, outputs: object) -> None:
        """Note what ``training_step`` returned: a loss, or a mapping with one; anything else is passed over."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._recent.append(loss.detach())  # read only when asked for: reading waits for the device

    def mark(self) -> None:
        """Remember the present level as the one before the first alert."""
        self.before = self.now

    @property
    def now(self) -> float:
        """Median of the last 20 finite losses; NaN without any. Not finite if the latest loss is not."""
        losses = [float(loss) for loss in self._recent]
        if losses and not math.isfinite(losses[-1]):
            return losses[-1]
        finite = [loss for loss in losses if math.isfinite(loss)]
        return median(finite) if finite else math.nan

    @property
    def has_returned(self) -> bool:
        """False if the loss is above its level before the first alert, or not finite any more."""
        now = self.now
        if math.isnan(self.before):
            return not self._recent or math.isfinite(now)
        return now <= self.before

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"before": self.before, "recent": [float(loss) for loss in self._recent]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.before = state["before"]
        self._recent = deque(state["recent"], maxlen=WINDOW)
