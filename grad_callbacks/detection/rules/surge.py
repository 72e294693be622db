"""A surge: updates far longer than the run's own, and a loss that rises with them, wherever it began."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.rules.spans import SPANS


@dataclass(frozen=True)
class SurgeThresholds(Thresholds):
    """Thresholds of :class:`Surge`."""

    motion: float = threshold(
        10.0, "multiple of the usual motion that is far", unit="x median motion", source="not measured"
    )
    rise: float = threshold(
        2.5,
        "how far a level of five losses must be above the usual ones to have risen",
        unit="median absolute deviations",
        source="formula: three standard errors of a median of five, 3 x 1.4826 x 1.2533 / sqrt(5)",
    )


LIMITS = SurgeThresholds()


class Surge:
    """Compares motion and loss with the run's own usual ones.

    A language model begins at the largest loss it can have, so what goes wrong with it lies below the first loss. What
    is usual never takes in what is far, or up; a loss that stays up for 80 readings is the new usual one.

    Attributes:
        is_risen: The level of the loss is above the usual one, beyond its noise.
        farthest: The farthest of the latest motions that were far, relative to the usual one; NaN without.
    """

    def __init__(self) -> None:
        self.is_risen = False
        self.farthest = math.nan
        self._motions: list[float] = []
        self._last_motion = math.nan
        self._since_far = math.inf
        self._losses: list[float] = []
        self._usual = (math.nan, math.nan)  # median and spread of the losses in the window
        self._risen_for = 0

    @property
    def is_on(self) -> bool:
        """True while the loss has risen after a far motion."""
        return self.is_risen and not math.isnan(self.farthest)

    @property
    def is_new(self) -> bool:
        """True if the loss has risen lately, so that motions are worth measuring."""
        return self.is_risen and self._risen_for <= SPANS.recent

    @property
    def losses_left(self) -> int:
        """Losses that can come until another loss is the usual one."""
        return SPANS.recent - len(self._losses) % (SPANS.recent)

    @property
    def highest(self) -> float:
        """The level up to which the loss has not risen; infinite before anything is usual."""
        limit = self._highest()
        return math.inf if math.isnan(limit) else limit

    def _highest(self) -> float:
        usual, spread = self._usual
        return usual + LIMITS.rise * spread

    def take_in(self, motion: float, loss: float, level: float) -> None:
        """Take in a reading.

        Args:
            motion: How far the step last measured has moved all weights, relative to them.
            loss: Of this reading.
            level: Of the last losses.
        """
        self._since_far += 1
        if math.isfinite(motion) and motion != self._last_motion:
            self._last_motion = motion
            self._take_motion(motion)
        self._take_level(level)
        if not self.is_risen and math.isfinite(loss):
            self._take_loss(loss)
        if self._since_far > SPANS.recent:
            self.farthest = math.nan

    def _take_motion(self, motion: float) -> None:
        usual = median(self._motions) if len(self._motions) >= SPANS.level else math.nan
        if usual > 0 and motion > LIMITS.motion * usual:  # 0: the learning rate began there
            self._since_far = 0
            times = motion / usual
            self.farthest = times if math.isnan(self.farthest) else max(times, self.farthest)
        else:
            self._motions = [*self._motions, motion][-2 * SPANS.recent :]

    def _take_level(self, level: float) -> None:
        self.is_risen = level > self._highest()  # NaN before anything is usual
        self._risen_for = self._risen_for + 1 if self.is_risen else 0
        if self._risen_for > SPANS.stuck:
            self._losses, self._usual, self._risen_for, self.is_risen = [], (math.nan, math.nan), 0, False

    def _take_loss(self, loss: float) -> None:
        """Half of a window is taken in at once, so that a level is never compared with itself."""
        self._losses.append(loss)
        window = 2 * SPANS.recent
        if len(self._losses) == window + SPANS.recent:
            self._losses = self._losses[SPANS.recent :]
        if len(self._losses) in (SPANS.recent, window):
            middle = median(self._losses)
            spread = median(abs(loss - middle) for loss in self._losses)
            self._usual = (middle, spread)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "is_risen": self.is_risen,
            "farthest": self.farthest,
            "motions": list(self._motions),
            "last_motion": self._last_motion,
            "since_far": self._since_far,
            "losses": list(self._losses),
            "usual": list(self._usual),
            "risen_for": self._risen_for,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.is_risen, self.farthest = state["is_risen"], state["farthest"]
        self._motions, self._last_motion = list(state["motions"]), state["last_motion"]
        self._since_far, self._losses = state["since_far"], list(state["losses"])
        self._usual, self._risen_for = (state["usual"][0], state["usual"][1]), state["risen_for"]
