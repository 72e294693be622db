"""The conditions under which gradients explode: one name and one function each."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from grad_callbacks.detection.rules.exploding_history import RunHistory, is_adaptive
from grad_callbacks.detection.rules.leeway import LEEWAY, NO_LEEWAY, Leeway
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import DEPTH, decay_per_layer
from grad_callbacks.measurement.loss_level import LOSS_LEVEL


class Condition(Enum):
    """What is wrong with a reading."""

    FIRST_STEP_TOO_LARGE = "before there is a usual norm, the update would leave nothing of the weights"
    STEP_TOO_LARGE = "a gradient far beyond the usual, whose update would change the weights too much"
    NORM_JUMPED = "the same for adaptive optimizers, which bound their updates"
    DIVERGED_EARLY = "the first updates changed the weights too much, and the loss has risen"
    LOSS_DIVERGED = "the level of the loss is far above that at the start"
    PROGRESS_LOST = "half of what was learned is lost"
    SURGED = "updates far longer than usual, and a loss that has risen with them"
    GROWS_OVER_DEPTH = "the error grows on its way back through the layers"
    RECURRENCE_STUCK = "a recurrent network whose weights would multiply an error has learned nothing"
    BECAME_NONFINITE = "one of these was true one reading before the gradients became NaN or infinite"


# An optimizer may recover from a single hard example, and a run from its first steps.
LASTING = (
    Condition.NORM_JUMPED,
    Condition.DIVERGED_EARLY,
    Condition.LOSS_DIVERGED,
    Condition.SURGED,
    Condition.GROWS_OVER_DEPTH,
)


def condition_of(reading: Reading, run: RunHistory) -> Condition | None:
    """Return the first condition that a finite reading meets.

    Args:
        reading: Has been taken in by ``run``.
        run: The run so far.
    """
    for condition, holds in CONDITIONS.items():
        if holds(reading, run):
            return condition
    return None


def readings_needed(condition: Condition) -> int:
    """Return how many readings in a row must be wrong before this condition raises an alert."""
    return SPANS.in_a_row if condition in LASTING else 1


def is_large(reading: Reading, run: RunHistory) -> bool:
    """True if the norm is far beyond the usual one."""
    return reading.comparable_norm > run.limits.factor * run.baseline.level  # NaN during the warm-up


def is_harmful(reading: Reading, run: RunHistory) -> bool:
    """True if the update would leave nothing of the weights."""
    return reading.displacement > run.limits.harmful_update * run.limits.displacement


def grows_over_depth(reading: Reading, run: RunHistory) -> bool:
    """True if the error grows too much over the layers or into a recurrent one."""
    error, growth = reading.error_profile, run.limits.growth
    if run.is_recurrent and len(error) > 1:
        return bool(error[:-1].max() > growth * error[-1])
    if len(error) < DEPTH.fitted or not reading.error_early_to_late > growth:
        return False  # the fit takes long for many layers
    return decay_per_layer(error) ** (len(error) - 1) > growth


def leeway(run: RunHistory) -> Leeway:
    """Return for how long no condition can hold, nor nearly, if none does now and the error does not grow."""
    limits, surge = run.limits, run.surge
    if not run.has_baseline or run.is_early or surge.is_risen:
        return NO_LEEWAY
    readings = min(SPANS.recent - 1 - run.lost_for, surge.losses_left, LEEWAY.most)
    if run.is_chaotic and run.loss.count < SPANS.stuck:
        readings = min(readings, SPANS.stuck - 1 - run.loss.count)
    highest = surge.highest
    if run.loss.scale > 0:
        highest = min(highest, LEEWAY.rounding * limits.rise * run.loss.scale)
    spare = run.loss.spare(highest)
    if readings < 1 or spare < 0:
        return NO_LEEWAY
    norm = LEEWAY.rounding * min(limits.factor, limits.jump) * run.baseline.lowest(LEEWAY.most)
    return Leeway(readings, norm, highest, spare)


def _first_step_too_large(reading: Reading, run: RunHistory) -> bool:
    if run.has_baseline or run.readings == 1 or not is_harmful(reading, run):
        return False  # the first reading is judged by itself: its weights may be to blame
    # A norm that shrinks is on its way to large weights, as in a regression on large targets; but not in a product of
    # several weights, or of as many as there are time steps.
    is_product = run.is_recurrent or len(reading.profile) >= DEPTH.parts
    return is_product or reading.comparable_norm > run.last_norm


def _step_too_large(reading: Reading, run: RunHistory) -> bool:
    is_too_large = reading.displacement > run.limits.displacement
    return is_large(reading, run) and is_too_large and _loss_is_up(reading, run)


def _loss_is_up(reading: Reading, run: RunHistory) -> bool:
    """False for a loss that has not risen, or not by much: a plateau is left, or a minimum is near."""
    highest = max(run.loss_before + LOSS_LEVEL.learned * run.loss.scale, run.loss.scale / 2)
    return not reading.loss <= highest  # True where it is unknown


def _norm_jumped(reading: Reading, run: RunHistory) -> bool:
    norm = min(reading.comparable_norm, reading.clip_at or math.inf)
    usual = max(run.baseline.level, run.baseline.highest)  # NaN before there is a baseline
    has_jumped = norm > run.limits.jump * usual
    return is_adaptive(reading) and has_jumped and not abs(reading.loss) <= run.limits.rise * run.loss.scale


# The next four are for adaptive optimizers: elsewhere noisy updates may be large, and those that are too large are
# seen before they are made.


def _diverged_early(reading: Reading, run: RunHistory) -> bool:
    norm_is_up = reading.comparable_norm > 2 * run.first_norm
    loss_is_up = abs(reading.loss) > run.limits.rise * run.first_loss
    is_too_large = run.largest_update > run.limits.diverged_update * run.limits.displacement
    return is_adaptive(reading) and run.is_early and norm_is_up and loss_is_up and is_too_large


def _loss_diverged(reading: Reading, run: RunHistory) -> bool:
    norm_is_up = reading.comparable_norm > 2 * run.baseline.level
    has_moved = run.largest_update * SPANS.recent > run.limits.displacement  # else the loss may have been multiplied
    return is_adaptive(reading) and norm_is_up and run.loss.risen > run.limits.rise and has_moved


def _progress_lost(reading: Reading, run: RunHistory) -> bool:
    has_lasted = run.lost_for >= SPANS.recent and 2 * run.large_while_lost >= run.lost_for
    return is_adaptive(reading) and has_lasted


def _surged(reading: Reading, run: RunHistory) -> bool:
    return run.surge.is_on


def _recurrence_stuck(reading: Reading, run: RunHistory) -> bool:
    """True once, when a recurrent network that would explode should have learned something by now."""
    return run.is_chaotic and run.loss.count == SPANS.stuck and run.loss.gained < LOSS_LEVEL.learned


# In this order: the first that holds is told.
CONDITIONS: dict[Condition, Callable[[Reading, RunHistory], bool]] = {
    Condition.FIRST_STEP_TOO_LARGE: _first_step_too_large,
    Condition.NORM_JUMPED: _norm_jumped,
    Condition.STEP_TOO_LARGE: _step_too_large,
    Condition.DIVERGED_EARLY: _diverged_early,
    Condition.LOSS_DIVERGED: _loss_diverged,
    Condition.PROGRESS_LOST: _progress_lost,
    Condition.SURGED: _surged,
    Condition.GROWS_OVER_DEPTH: grows_over_depth,
    Condition.RECURRENCE_STUCK: _recurrence_stuck,
}
