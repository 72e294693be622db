"""Rule for attention whose softmax has come to choose a single position, whatever the weights are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import fraction, positive
from grad_callbacks.detection.plain_numbers import rounded
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.exploding import Exploding
from grad_callbacks.detection.rules.leeway import LEEWAY, NO_LEEWAY, Leeway
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import QuietBlock, Reading


@dataclass(frozen=True)
class SaturatedAttentionThresholds(Thresholds):
    """Thresholds of :class:`SaturatedAttention`; its arguments replace the first two."""

    entropy: float = threshold(
        0.1,
        "entropy of the attention of a call below which it has collapsed",
        unit="share of that of equal weights",
        source="measured: language models that end near their twin stay above .25, others fall below .06",
    )
    score: float = threshold(
        50.0,
        "size of the largest score that must come with it",
        unit="score",
        source="measured: 31 and 99 in the same runs; QK-clip begins at 100 (arXiv 2507.20534)",
    )
    learned: float = threshold(
        0.1,
        "where the loss has come down to less, single positions are what there was to learn",
        unit="share of the first loss",
        source="not measured",
    )


LIMITS = SaturatedAttentionThresholds()
CAUSE = "saturated attention"


class SaturatedAttention(Rule):
    """Sees attention collapse: one call's softmax gives all its weight to single positions.

    Scores that have grown too large leave the softmax no gradient, so what a position attends to is learned no more
    (Zhai et al. 2023, arXiv 2303.06296; Wortsman et al. 2023, arXiv 2309.14322, sec. 3.1, on learning rates that make
    scores grow). The loss still falls, only less far. It is measured every 25 readings, and at each once it has
    collapsed; the third measurement in a row raises an alert, if the attention was well at the first and the loss has
    not come down to a tenth.

    Args:
        entropy: Entropy below which attention has collapsed, as a share of that of equal weights.
        score: Size of the largest score that must come with it.

    Raises:
        ValueError: If ``entropy`` does not lie between 0 and 1, or ``score`` is not positive.
    """

    kind = Exploding.kind  # which declares what it means

    def __init__(self, entropy: float = LIMITS.entropy, score: float = LIMITS.score) -> None:
        self.entropy = fraction("entropy", entropy)
        self.score = positive("score", score)
        self._well = math.sqrt(self.entropy)  # half way up, on a scale of logarithms
        self._first_loss = self._first_entropy = math.nan
        self._well_at = -1  # the step of the last measurement that was well
        self._collapsed = 0  # measurements in a row

    def judge(self, reading: Reading) -> Alert | None:
        """Return an alert when attention has collapsed."""
        if math.isnan(self._first_loss):
            self._first_loss = reading.loss
        entropy, score = reading.attention_entropy, reading.attention_score
        if not math.isfinite(entropy) or not math.isfinite(score):
            return None
        if math.isnan(self._first_entropy):
            self._first_entropy = entropy
        if entropy > self._well:
            self._well_at = reading.step
        has_learned = reading.loss < LIMITS.learned * self._first_loss
        began_well = self._first_entropy > self._well
        if not began_well or has_learned or entropy >= self.entropy or score <= self.score:
            self._collapsed = 0
            return None
        self._collapsed += 1
        return self._alert(reading) if self._collapsed == SPANS.in_a_row else None

    def leeway(self) -> Leeway:
        """Any while it is not collapsed: only readings at which attention is measured tell."""
        return NO_LEEWAY if self._collapsed else Leeway(LEEWAY.any)

    def take_in(self, block: QuietBlock) -> None:
        """Do nothing: attention was not measured."""

    @property
    def active(self) -> bool:
        """True while it is collapsed."""
        return self._collapsed >= SPANS.in_a_row

    @property
    def near(self) -> bool:
        """True after a first collapsed measurement, and after the alert: was it answered?"""
        return 0 < self._collapsed <= SPANS.in_a_row

    def _alert(self, reading: Reading) -> Alert:
        entropy, score = reading.attention_entropy, reading.attention_score
        seen = (
            f"attention has collapsed: its scores are as large as {rounded(score)}, and the entropy of its softmax is "
            f"{entropy:.0%} of that of equal weights, where it was {self._first_entropy:.0%}"
        )
        numbers = {"attention_entropy": entropy, "attention_score": score, "well_at": float(self._well_at)}
        evidence = Evidence(numbers | ({"norm": reading.norm} if reading.is_finite else {}))
        advice = "lower the learning rate (ReduceLR); normalise queries and keys (QK-norm)"
        return Alert(self.kind, "critical", reading.step, (), seen, evidence, CAUSE, advice, reading.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "first_loss": self._first_loss,
            "first_entropy": self._first_entropy,
            "well_at": self._well_at,
            "collapsed": self._collapsed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._first_loss, self._first_entropy = state["first_loss"], state["first_entropy"]
        self._well_at, self._collapsed = state["well_at"], state["collapsed"]
