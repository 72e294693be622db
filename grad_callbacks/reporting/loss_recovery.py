"""Whether the training loss has come back to where it was before the first alert."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.loss_level import LOSS_LEVEL


@dataclass(frozen=True)
class LossRecoveryThresholds(Thresholds):
    """When a loss has come back."""

    window: int = threshold(
        20, "losses over which the level before the first alert, and now, is taken", unit="steps", source="not measured"
    )
    quantile: float = threshold(
        0.75,
        "quantile of the losses before the alert that a loss with its noise stays below once it is back",
        unit="1",
        source="not measured",
    )
    progress: int = threshold(
        100,
        "losses before which nothing is said of a loss that has not come down",
        unit="losses",
        source="measured: of some 140 healthy recorded runs, seed 0, it says so of none",
    )
    most_levels: int = threshold(
        200,
        "levels that are kept; then every second is dropped, and later ones are further apart",
        unit="levels",
        source="not measured",
    )
    gone: float = threshold(
        0.95,
        "share of the first loss that a run has lost once it has learned what there is to learn",
        unit="share of the first loss",
        source="measured: of 86 guarded runs of the tuning half and of high_lr, seeds 0 and 20 to 22, it calls 63 "
        "repaired, 60 rightly, and 60 of the 67 that are",
    )
    learned_before: float = threshold(
        0.4,
        "a run that had lost this share of its first loss before the alert has a level to go back to",
        unit="share of the first loss",
        source="measured: language models, which begin at the logarithm of their vocabulary, are there half way",
    )
    steps_lost: float = threshold(
        0.1,
        "steps without progress that are made up for: a tenth less of training changes little",
        unit="share of all steps",
        source="as the tenth more steps of the scoreboard's treatment full_longer",
    )
    below_best: float = threshold(
        0.05,
        "a loss above the best one by more has not kept what was learned",
        unit="share of what was gained",
        source="measured: the same runs; of repaired ones up to .05, of others up to .1",
    )


LIMITS = LossRecoveryThresholds()


class LossRecovery:
    """Compares the loss of the last steps with the losses just before the first alert, and with the very first ones."""

    def __init__(self) -> None:
        self._count = 0
        self._marked_at: int | None = None
        self._first: list[Tensor | float] = []
        self._earlier: tuple[Tensor | float, ...] = ()  # as they were at the first alert
        self._recent: deque[Tensor | float] = deque(maxlen=LIMITS.window)
        self._levels: list[tuple[int, Tensor | float]] = []  # number of losses so far, and the median of the last ones
        self._every = LIMITS.window  # losses from one level to the next

    def feed(self, outputs: object) -> None:
        """Note what ``training_step`` returned: a loss, or a mapping with one; anything else is passed over."""
        loss = outputs if isinstance(outputs, Tensor) else _loss_in(outputs)
        if isinstance(loss, Tensor) and loss.numel() == 1:
            # Read only when asked for, since reading waits for the device; a copy, since buffers are used again.
            kept = loss.detach().clone()
            self._recent.append(kept)
            self._count += 1
            if len(self._first) < LOSS_LEVEL.window:
                self._first.append(kept)
            if self._count % self._every == 0:
                self._note_level()

    def _note_level(self) -> None:
        device = next((loss.device for loss in reversed(self._recent) if isinstance(loss, Tensor)), None)
        if device is None:
            recent = torch.tensor(list(self._recent), dtype=torch.float32)
        else:  # those from a checkpoint are numbers
            recent = torch.stack([torch.as_tensor(loss, device=device).reshape(()).float() for loss in self._recent])
        finite = torch.where(torch.isfinite(recent), recent, math.nan)
        self._levels.append((self._count, finite.nanmedian()))  # on the device: reading would wait for it
        if len(self._levels) > LIMITS.most_levels:
            self._levels, self._every = self._levels[1::2], 2 * self._every

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
        return float(np.quantile(finite, LIMITS.quantile)) if finite else math.nan

    @property
    def now(self) -> float:
        """Median of the last 20 losses' finite ones; the latest if none is.

        A batch whose loss is undefined says nothing about the weights: as long as a rule finds it wrong, the run counts
        as wrong anyway.
        """
        finite = _finite(self._recent)
        if finite:
            return median(finite)
        return float(self._recent[-1]) if self._recent else math.nan

    @property
    def has_returned(self) -> bool:
        """False if the loss stays above where it was before the first alert, or is not finite any more."""
        if not self._recent:
            return True  # nothing is known of a loss
        return math.isfinite(self.now) and not self.now > self.ceiling

    def is_back(self, rolled_back: int) -> bool:
        """True if the loss is where it would have been without the trouble, as far as the loss alone can tell.

        It has not left the best level again, and either next to nothing is left of the first loss, or what was learned
        before the alert came back within a tenth of all steps. A run that had learned little before the alert, and
        whose loss has some way to go still, may be back or not: nobody knows how far it would have come.

        Args:
            rolled_back: Steps that remedies have gone back.
        """
        levels = [(count, float(level)) for count, level in self._levels]
        known = [level for _, level in levels if math.isfinite(level)]
        first, now = self.began, self.now
        if not known or not math.isfinite(first) or not math.isfinite(now):
            return False
        best = min(*known, now)
        if now - best > LIMITS.below_best * (first - best):
            return False
        if 0 <= now <= (1 - LIMITS.gone) * first:
            return True
        if self._marked_at is None or not first - self.before >= LIMITS.learned_before * abs(first):
            return False
        returned = next((count for count, level in levels if count > self._marked_at and level <= self.ceiling), None)
        if returned is None:
            return False
        return self.are_few(returned - self._marked_at + rolled_back - LIMITS.window)

    def are_few(self, steps: int) -> bool:
        """True if so many steps less change little of a training as long as this one."""
        return steps <= LIMITS.steps_lost * self._count

    @property
    def is_marked_early(self) -> bool:
        """True if the first alert came with the first losses, so that the level before it is that of the beginning."""
        return self._marked_at is not None and self._marked_at < LIMITS.window

    @property
    def has_learned(self) -> bool:
        """True if the loss is well below all of the first ones; also if nothing is known of them."""
        known = _finite(self._first)
        return not known or min(known) - self.now > LOSS_LEVEL.learned * abs(min(known))

    @property
    def is_where_it_began(self) -> bool:
        """True if the loss is not below where it began, after 100 losses or more.

        False where that means nothing: losses of both signs, as of policy gradients.
        """
        known = [*_finite(self._first), *_finite(self._recent)]
        if self._count < LIMITS.progress or not known or min(known) < 0 < max(known):
            return False
        return not self.now < self.began

    @property
    def began(self) -> float:
        """Median of the first 5 finite losses; NaN without any."""
        finite = _finite(self._first)
        return median(finite) if finite else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "count": self._count,
            "marked_at": self._marked_at,
            "first": [float(loss) for loss in self._first],
            "earlier": [float(loss) for loss in self._earlier],
            "recent": [float(loss) for loss in self._recent],
            "levels": [[count, float(level)] for count, level in self._levels],
            "every": self._every,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._count, self._marked_at, self._first = state["count"], state["marked_at"], list(state["first"])
        self._earlier = tuple(state["earlier"])
        self._recent = deque(state["recent"], maxlen=LIMITS.window)
        self._levels = [(count, level) for count, level in state.get("levels", [])]  # an older version kept none
        self._every = state.get("every", LIMITS.window)


def _loss_in(outputs: object) -> object:
    return outputs.get("loss") if isinstance(outputs, Mapping) else None


def _finite(losses: Iterable[Tensor | float]) -> list[float]:
    return [value for loss in losses if math.isfinite(value := float(loss))]
