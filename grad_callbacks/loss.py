"""The training loss: the course it takes, and whether it has come back after the first alert."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

FIRST = 10  # losses that tell where the run began
LEVEL = 5  # losses over which a rule takes a level: a median of 5 passes over two bad batches
LEARNED = 0.1  # of its size that a loss must have come down: more than what a head learns by its bias alone
WINDOW = 20  # losses over which the level before the first alert is taken


class LossCourse:
    """What rules ask of the training loss, whatever its scale: all is relative to where the run began.

    Losses that are unknown or not finite never enter.

    Attributes:
        count: Losses so far.
        level: The present level, a median of 5; NaN before there are as many.
        best: The lowest level so far; infinite before there is one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.level, self.best = math.nan, math.inf
        self._first: list[float] = []
        self._recent: list[float] = []

    @property
    def scale(self) -> float:
        """The largest of the first 10 absolute losses; NaN before there is one.

        Losses that may be negative or begin near zero (log-likelihoods, policy gradients) have no other natural unit.
        """
        return max(map(abs, self._first)) if self._first else math.nan

    @property
    def start(self) -> float:
        """The level of the first losses; NaN before there are 5."""
        return median(self._first[:LEVEL]) if len(self._first) >= LEVEL else math.nan

    @property
    def gained(self) -> float:
        """How far the level has come down at best, relative to :attr:`scale`; NaN before that is known."""
        return (self.start - self.best) / self.scale if self.scale > 0 and math.isfinite(self.best) else math.nan

    @property
    def risen(self) -> float:
        """The present level relative to :attr:`scale`: 1 is as bad as the run began; NaN before that is known."""
        return self.level / self.scale if self.scale > 0 else math.nan

    def feed(self, loss: float) -> None:
        """Take in the loss of a reading."""
        if not math.isfinite(loss):
            return
        self.count += 1
        if len(self._first) < FIRST:
            self._first.append(loss)
        self._recent = [*self._recent, loss][-LEVEL:]
        self._take_level()
        if self.count >= LEVEL:
            self.best = min(self.best, self.level)

    def _take_level(self) -> None:
        self.level = median(self._recent) if len(self._recent) == LEVEL else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {"count": self.count, "first": list(self._first), "recent": list(self._recent), "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self.best = state["count"], state["best"]
        self._first, self._recent = list(state["first"]), list(state["recent"])
        self._take_level()


class LossTrack:
    """Compares the loss of the last steps with the losses just before the first alert, and with the very first ones."""

    def __init__(self) -> None:
        self._count = 0
        self._marked_at: int | None = None
        self._first: list[Tensor | float] = []
        self._earlier: tuple[Tensor | float, ...] = ()  # as they were at the first alert
        self._recent: deque[Tensor | float] = deque(maxlen=WINDOW)

    def feed(self, outputs: object) -> None:
        """Note what ``training_step`` returned: a loss, or a mapping with one; anything else is passed over."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            # Read only when asked for, since reading waits for the device; a copy, since buffers are used again.
            kept = loss.detach().clone()
            self._recent.append(kept)
            self._count += 1
            if len(self._first) < LEVEL:
                self._first.append(kept)

    def mark(self, late: bool = False) -> None:
        """Remember the present level as the one before the first alert.

        Args:
            late: The loss of the alert's own step has been fed already, and is left out.
        """
        losses = tuple(self._recent)
        self._earlier = losses[:-1] if late else losses  # not read yet: reading would wait for the device
        self._marked_at = self._count

    @property
    def before(self) -> float:
        """Median of the last 20 finite losses before the first alert; NaN without an alert or a loss."""
        finite = _finite(self._earlier)
        return median(finite) if finite else math.nan

    @property
    def ceiling(self) -> float:
        """Upper quartile of the same: what a loss that has come back stays below in spite of its noise."""
        finite = _finite(self._earlier)
        return float(np.quantile(finite, 0.75)) if finite else math.nan

    @property
    def now(self) -> float:
        """Median of the last 20 finite losses; NaN without any. Not finite if the latest loss is not."""
        if self._recent and not math.isfinite(latest := float(self._recent[-1])):
            return latest
        finite = _finite(self._recent)
        return median(finite) if finite else math.nan

    @property
    def has_returned(self) -> bool:
        """False if the loss stays above where it was before the first alert, or is not finite any more."""
        if not self._recent:
            return True  # nothing is known of a loss
        return math.isfinite(self.now) and not self.now > self.ceiling

    @property
    def is_marked_early(self) -> bool:
        """True if the first alert came with the first losses, so that the level before it is that of the beginning."""
        return self._marked_at is not None and self._marked_at < WINDOW

    @property
    def has_learned(self) -> bool:
        """True if the loss is well below all of the first ones; also if nothing is known of them."""
        known = _finite(self._first)
        return not known or min(known) - self.now > LEARNED * abs(min(known))

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "count": self._count,
            "marked_at": self._marked_at,
            "first": [float(loss) for loss in self._first],
            "earlier": [float(loss) for loss in self._earlier],
            "recent": [float(loss) for loss in self._recent],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._count, self._marked_at, self._first = state["count"], state["marked_at"], list(state["first"])
        self._earlier = tuple(state["earlier"])
        self._recent = deque(state["recent"], maxlen=WINDOW)


def _finite(losses: Iterable[Tensor | float]) -> list[float]:
    return [value for loss in losses if math.isfinite(value := float(loss))]
