"""Rule for a single outlier that would starve an adaptive optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import positive
from grad_callbacks.detection.plain_numbers import rounded
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.baseline import Baseline
from grad_callbacks.detection.rules.episode import Episode
from grad_callbacks.detection.rules.exploding import Exploding
from grad_callbacks.detection.rules.exploding_message import largest_layers
from grad_callbacks.detection.rules.exploding_thresholds import LIMITS as EXPLODING
from grad_callbacks.detection.rules.leeway import LEEWAY, NO_LEEWAY, Leeway
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.events import Alert, Evidence, Severity
from grad_callbacks.measurement import QuietBlock, Reading


@dataclass(frozen=True)
class OutlierThresholds(Thresholds):
    """The number of :class:`Outlier`, which is its argument."""

    shorter: float = threshold(
        3.0,
        "how many times shorter the steps after it would be, from which on an outlier is harmful",
        unit="x",
        source="not measured",
    )


LIMITS = OutlierThresholds()
BAD_BATCH = "bad batch"


class _Doubt(NamedTuple):
    """An outlier whose batch was not shown to be to blame."""

    shorter: float  # how many times it makes the steps shorter
    ratio: float  # of its norm to the largest before
    below: float  # a norm that shows that it was no new scale
    loss: float
    age: int = 0  # readings since


class Outlier(Rule):
    """Sees a gradient that would make the steps after it much shorter, by the optimizer's own arithmetic.

    Adam and RMSprop divide each step by the root of a mean of squared gradients. A gradient ``r`` times the usual one
    multiplies that root by ``sqrt(1 + (1 - decay) * r**2)`` and so shortens the next steps, for about
    ``1 / (1 - decay)`` of them (Kingma & Ba 2015, algorithm 1; Molybog et al. 2023, arXiv 2304.09871, on what
    gradients of unusual size leave behind in it). With a decay of .95 twelve times the usual gradient shortens them
    to a third, with .999 ninety times.

    One reading does not show whether its batch is to blame or the loss has another scale from now on. The diagnosis
    computes the loss of the batch before with the weights of now: if that is as usual, the batch is to blame, and the
    alert is a ``warning`` in the same step. Where that is not known (manual optimization, a GPU) or does not show it,
    the next readings decide: if within 20 of them the norm is far below again, and the steps are shorter by the
    square of ``shorter``, the alert is ``critical``, for the harm is done. (A healthy variational autoencoder on raw
    inputs has one that makes them 4.7 times shorter.)

    Args:
        shorter: How many times shorter the steps after it would be.

    Raises:
        ValueError: If ``shorter`` is not positive.
    """

    kind = Exploding.kind  # which declares what it means

    def __init__(self, shorter: float = LIMITS.shorter) -> None:
        self.shorter = positive("shorter", shorter)
        self._baseline = Baseline(limit=EXPLODING.factor)
        self._episode = Episode()
        self._doubt: _Doubt | None = None
        self._is_seen = False  # the optimizer's last step
        self._squares_decay = math.nan  # of it

    def judge(self, reading: Reading) -> Alert | None:
        """Return an alert for the first of several outliers."""
        if reading.overflow or not reading.is_finite:
            return None
        self._is_seen, self._squares_decay = True, reading.squares_decay
        norm = min(reading.comparable_norm, reading.clip_at or math.inf)
        usual = max(self._baseline.level, self._baseline.highest)  # NaN during the warm-up
        ratio = norm / usual if usual > 0 else math.nan
        shorter = math.sqrt(1 + (1 - reading.squares_decay) * ratio**2)
        self._baseline.feed(norm)
        if (doubt := self._doubt) is not None:
            is_over = doubt.age >= SPANS.recent
            self._doubt = None if is_over else doubt._replace(age=doubt.age + 1)
            if not is_over and norm < doubt.below:
                self._doubt = None
                return self._late(reading, doubt) if doubt.shorter > self.shorter**2 else None
        if not shorter > self.shorter:
            self._episode.calm()
            return None
        if self._episode.alarm() > 1:
            return None
        # Half way back, on a scale of logarithms, it was no new scale.
        below = usual * max(EXPLODING.factor, math.sqrt(ratio))
        self._doubt = _Doubt(shorter, ratio, below, reading.loss)
        return self._early(reading, shorter)

    def leeway(self) -> Leeway:
        """None while an outlier is in doubt or there is no usual norm; else up to the norm of the next outlier."""
        if self._doubt is not None or math.isnan(self._baseline.level):
            return NO_LEEWAY
        share, squares = 1 - self._squares_decay, self.shorter**2 - 1
        if math.isnan(share) and self._is_seen:
            return Leeway(LEEWAY.any)  # the optimizer keeps no squares
        if not share > 0 or not squares > 0:
            return NO_LEEWAY
        ratio = LEEWAY.rounding * min(math.sqrt(squares / share), EXPLODING.factor)
        return Leeway(LEEWAY.most, norm=ratio * self._baseline.lowest(LEEWAY.most))

    def take_in(self, block: QuietBlock) -> None:
        """Take in usual norms."""
        highest = block.latest.clip_at or math.inf
        for norm in block.norms:
            self._baseline.feed(min(norm, highest))
        self._episode.calm(len(block))

    def is_borne_out(self, alert: Alert, is_tried: bool) -> bool:
        """False for a warning if the batch was not found to be to blame."""
        is_shown = alert.severity == "critical" or (is_tried and alert.cause == BAD_BATCH)
        if is_shown:
            self._doubt = None
        return is_shown

    def _early(self, reading: Reading, shorter: float) -> Alert:
        usual, norm = self._baseline.level, reading.comparable_norm
        seen = (
            f"gradient norm {rounded(norm)}, {rounded(norm / usual)} times the usual {rounded(usual)}; it makes the "
            f"optimizer's next steps {rounded(shorter)} times shorter"
        )
        numbers = {"norm": reading.norm, "reference": usual, "ratio": norm / usual, "shorter": shorter}
        advice = "lower the learning rate (ReduceLR)"  # unless the diagnosis finds that the batch is to blame
        return self._alert(reading, "warning", seen, numbers | {"loss": reading.loss}, "learning rate too high", advice)

    def _late(self, reading: Reading, doubt: _Doubt) -> Alert:
        seen = (
            f"one gradient, {rounded(doubt.ratio)} times as large as those before, has made the optimizer's steps "
            f"{rounded(doubt.shorter)} times shorter"
        )
        numbers = {"norm": reading.norm, "reference": self._baseline.level, "shorter": doubt.shorter}
        numbers |= {"readings_since_jump": doubt.age + 1.0, "jump_loss": doubt.loss}
        advice = "clip by norm (ClipNorm) near the usual norm; skip such batches (SkipStep)"
        return self._alert(reading, "critical", seen, numbers, BAD_BATCH, advice)

    def _alert(
        self, reading: Reading, severity: Severity, seen: str, numbers: dict[str, float], cause: str, advice: str
    ) -> Alert:
        names = largest_layers(reading)
        evidence = Evidence({name: value for name, value in numbers.items() if math.isfinite(value)})
        return Alert(self.kind, severity, reading.step, names, seen, evidence, cause, advice, reading.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "baseline": self._baseline.state_dict(),
            "episode": self._episode.state_dict(),
            "doubt": None if self._doubt is None else list(self._doubt),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._baseline.load_state_dict(state["baseline"])
        self._episode.load_state_dict(state["episode"])
        self._doubt = None if state["doubt"] is None else _Doubt(*state["doubt"])
