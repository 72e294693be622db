"""Is a training healthy, is it cured, and which of several is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.events import kind_named

CALM = ("healthy", "repaired", "partly repaired")  # outcomes in which nothing is wrong any more


@dataclass(frozen=True)
class CuredThresholds(Thresholds):
    """When a training counts as cured."""

    learned: float = threshold(
        0.8,
        "share of the first loss that a cured training has lost; of a cross entropy's at chance, if that is less",
        unit="share of the first loss",
        source="not measured",
    )
    margin: float = threshold(
        0.1, "by which its last loss is below that of the ill run", unit="share of the ill loss", source="not measured"
    )
    kept: float = threshold(
        0.05,
        "a run with single events only is well if its last loss is no further above its best level",
        unit="share of what was gained",
        source="as LossRecoveryThresholds.below_best",
    )


LIMITS = CuredThresholds()


def needs_cure(ill: Attempt) -> bool:
    """False for a run that was well, and for one whose single events have done no harm.

    Without an alert, a loss that is below zero, as of a policy gradient, tells nothing of progress.
    """
    if ill.error or ill.has_critical:
        return True
    if ill.verdict == "no progress":
        return ill.began > 0 and not ill.ended < 0
    if ill.verdict in ("healthy", "not measured"):
        return False
    known = [loss for loss in ill.curve if math.isfinite(loss)]
    if not known or not math.isfinite(ill.ended):
        return True
    best = min(known)
    is_kept = ill.ended - best <= max(LIMITS.kept, 1 - LIMITS.learned) * (ill.began - best)
    return not (is_kept and learned_share(ill, ill) >= LIMITS.learned)


def learned_share(attempt: Attempt, ill: Attempt) -> float:
    """The share of the first loss that is gone; of losses with both signs NaN.

    The first loss is the least of this training's, the ill one's and, for a cross entropy, that of chance: a loss that
    falls from 1e6 to chance has learned nothing.
    """
    classes = ill.inspection.classes
    levels = [attempt.began, ill.began, math.log(classes) if classes > 1 else math.nan]
    known = [level for level in levels if math.isfinite(level)]
    if not known or not math.isfinite(attempt.ended):
        return -math.inf
    first = min(known)
    if first <= 0 or attempt.ended < 0:
        return math.nan
    return 1 - attempt.ended / first


def gain(attempt: Attempt, ill: Attempt) -> float:
    """By how much the last loss is below the ill one's, as a share of that; infinite where only the ill one is lost."""
    if not math.isfinite(attempt.ended):
        return -math.inf
    if not math.isfinite(ill.ended):
        return math.inf
    return (ill.ended - attempt.ended) / max(abs(ill.ended), 1e-12)


def is_healthy(attempt: Attempt) -> bool:
    """True if nothing lasting was wrong: no critical alert, or none that clipping has not bounded.

    Of a guarded training the loss alone decides: what a guard masks or skips goes on being told.
    """
    if attempt.error or attempt.verdict in ("no progress", "not measured"):
        return False
    if not attempt.has_critical or attempt.is_guarded:
        return True
    return attempt.is_bounded and kind_named(attempt.kind).is_bounded_by_clipping


def is_cured(attempt: Attempt, ill: Attempt) -> bool:
    """True if it is healthy, has learned, and ends well below the ill run.

    A guard that says ``"repaired"`` has compared the loss with that before the fault: it knows more. Where
    ``training_step`` returns no loss, as in manual optimization, only the first is asked.
    """
    if not knows_loss(attempt, ill):
        return is_healthy(attempt) and (attempt.outcome in CALM or not attempt.is_guarded)
    share = learned_share(attempt, ill)
    is_back = attempt.is_guarded and attempt.outcome == "repaired"
    has_learned = is_back or math.isnan(share) or share >= LIMITS.learned
    return is_healthy(attempt) and has_learned and gain(attempt, ill) >= LIMITS.margin


def is_better(attempt: Attempt, ill: Attempt) -> bool:
    """True if it ends below the ill run, by the margin, whatever else is wrong."""
    if not knows_loss(attempt, ill):
        return is_healthy(attempt) and (attempt.outcome in CALM or not attempt.is_guarded)
    return not attempt.error and gain(attempt, ill) >= LIMITS.margin


def knows_loss(attempt: Attempt, ill: Attempt) -> bool:
    """True if ``training_step`` has returned losses."""
    return bool(attempt.curve or ill.curve)


def ranked(attempts: Iterable[Attempt], ill: Attempt) -> list[Attempt]:
    """Return the best first: cured, then by the last loss; those that nothing is left of come last."""

    def key(attempt: Attempt) -> tuple[bool, bool, float]:
        ended = attempt.ended if math.isfinite(attempt.ended) and not attempt.error else math.inf
        return not is_cured(attempt, ill), math.isinf(ended), ended

    return sorted(attempts, key=key)
