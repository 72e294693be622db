"""A surge: updates far longer than the run's own, and a loss that rises with them, wherever it began."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.loss_level import LOSS_LEVEL


@dataclass(frozen=True)
class SurgeThresholds(Thresholds):
    """Thresholds of :class:`Surge`."""

    motion: float = threshold(
        10.0, "multiple of the usual motion that is far", unit="x median motion", source="not measured"
    )
    usual: int = threshold(5, "motions from which on there is a usual one", unit="motions", source="not measured")
    remembered: int = threshold(
        50, "latest motions whose median is the usual one", unit="motions", source="not measured"
    )
    window: int = threshold(
        40, "losses whose median and spread are the usual ones", unit="losses", source="not measured"
    )
    rise: float = threshold(
        3.0,
        "standard errors of a level above the usual losses that are a rise",
        unit="standard errors",
        source="3 sigma",
    )
    aftermath: int = threshold(
        20,
        "readings after a far motion in which the loss shows its consequences",
        unit="readings",
        source="as after a jump of the norm",
    )
    in_a_row: int = threshold(5, "readings in a row with both", unit="readings", source="not measured")
    accepted: int = threshold(
        60, "readings after which a higher loss is the usual one", unit="readings", source="not measured"
    )
    mad_to_deviation: float = threshold(
        1.4826,
        "median absolute deviation to standard deviation",
        unit="1",
        source="formula: of the normal distribution",
    )
    median_error: float = threshold(
        1.2533, "error of a median over that of a mean", unit="1", source="formula: root of pi/2, normal distribution"
    )


LIMITS = SurgeThresholds()


class Surge:
    """Compares motion and loss with the run's own usual ones.

    A language model begins at the largest loss it can have, so what goes wrong with it lies below the first loss. What
    is usual never takes in what is far, or up; a loss that stays up for 60 readings is the new usual one.

    Attributes:
        lasting: Readings in a row with a risen loss after a far motion.
        is_risen: The level of the loss is above the usual one, beyond its noise.
        farthest: The farthest of the latest motions that were far, relative to the usual one; NaN without.
    """

    def __init__(self) -> None:
        self.lasting = 0
        self.is_risen = False
        self.farthest = math.nan
        self._motions: list[float] = []
        self._last_motion = math.nan
        self._since_far = math.inf
        self._losses: list[float] = []
        self._usual = (math.nan, math.nan)  # median and spread of the losses in the window
        self._risen_for = 0

    @property
    def holds(self) -> bool:
        """True if it has lasted long enough for an alert."""
        return self.lasting >= LIMITS.in_a_row

    @property
    def is_new(self) -> bool:
        """True if the loss has risen lately, so that motions are worth measuring."""
        return self.is_risen and self._risen_for <= LIMITS.aftermath

    @property
    def losses_left(self) -> int:
        """Losses that can come until another loss is the usual one."""
        return LIMITS.window // 2 - len(self._losses) % (LIMITS.window // 2)

    @property
    def highest(self) -> float:
        """The level up to which the loss has not risen; infinite before anything is usual."""
        limit = self._highest()
        return math.inf if math.isnan(limit) else limit

    def _highest(self) -> float:
        usual, spread = self._usual
        error = LIMITS.median_error * spread / math.sqrt(LOSS_LEVEL.window)
        return usual + LIMITS.rise * error

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
        if self._since_far > LIMITS.aftermath:
            self.farthest = math.nan
        is_on = self.is_risen and not math.isnan(self.farthest)
        self.lasting = self.lasting + 1 if is_on else 0

    def _take_motion(self, motion: float) -> None:
        usual = median(self._motions) if len(self._motions) >= LIMITS.usual else math.nan
        if usual > 0 and motion > LIMITS.motion * usual:  # 0: the learning rate began there
            self._since_far = 0
            times = motion / usual
            self.farthest = times if math.isnan(self.farthest) else max(times, self.farthest)
        else:
            self._motions = [*self._motions, motion][-LIMITS.remembered :]

    def _take_level(self, level: float) -> None:
        self.is_risen = level > self._highest()  # NaN before anything is usual
        self._risen_for = self._risen_for + 1 if self.is_risen else 0
        if self._risen_for > LIMITS.accepted:
            self._losses, self._usual, self._risen_for, self.is_risen = [], (math.nan, math.nan), 0, False

    def _take_loss(self, loss: float) -> None:
        """Half of a window is taken in at once, so that a level is never compared with itself."""
        self._losses.append(loss)
        if len(self._losses) == LIMITS.window + LIMITS.window // 2:
            self._losses = self._losses[LIMITS.window // 2 :]
        if len(self._losses) in (LIMITS.window // 2, LIMITS.window):
            middle = median(self._losses)
            spread = LIMITS.mad_to_deviation * median(abs(loss - middle) for loss in self._losses)
            self._usual = (middle, spread)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "lasting": self.lasting,
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
        self.lasting, self.is_risen, self.farthest = state["lasting"], state["is_risen"], state["farthest"]
        self._motions, self._last_motion = list(state["motions"]), state["last_motion"]
        self._since_far, self._losses = state["since_far"], list(state["losses"])
        self._usual, self._risen_for = (state["usual"][0], state["usual"][1]), state["risen_for"]
