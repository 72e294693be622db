"""The training loss around the first alert, which tells whether a remedy helped."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

WINDOW = 20  # losses over which a level is taken


class LossTrack:
    """Compares the loss of the last steps with the losses just before the first alert.

    Attributes:
        before: Median of the last 20 finite losses before the first alert; NaN without an alert or a loss.
        ceiling: Upper quartile of the same: what a loss that has come back stays below in spite of its noise.
    """

    def __init__(self) -> None:
        self.before = math.nan
        self.ceiling = math.nan
        self._recent: deque[Tensor | float] = deque(maxlen=WINDOW)

    def feed(self, outputs: object) -> None:
        """Note what ``training_step`` returned: a loss, or a mapping with one; anything else is passed over."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._recent.append(loss.detach())  # read only when asked for: reading waits for the device

    def mark(self) -> None:
        """Remember the present level as the one before the first alert."""
        finite = self._finite()
        if finite:
            self.before, self.ceiling = median(finite), float(np.quantile(finite, 0.75))

    @property
    def now(self) -> float:
        """Median of the last 20 finite losses; NaN without any. Not finite if the latest loss is not."""
        if self._recent and not math.isfinite(latest := float(self._recent[-1])):
            return latest
        finite = self._finite()
        return median(finite) if finite else math.nan

    @property
    def has_returned(self) -> bool:
        """False if the loss stays above where it was before the first alert, or is not finite any more."""
        if not self._recent:
            return True  # nothing is known of a loss
        return math.isfinite(self.now) and not self.now > self.ceiling

    def _finite(self) -> list[float]:
        return [value for loss in self._recent if math.isfinite(value := float(loss))]

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"before": self.before, "ceiling": self.ceiling, "recent": [float(loss) for loss in self._recent]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.before, self.ceiling = state["before"], state["ceiling"]
        self._recent = deque(state["recent"], maxlen=WINDOW)
