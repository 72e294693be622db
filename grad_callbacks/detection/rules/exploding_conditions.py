"""The conditions under which gradients explode: one name and one function each."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from grad_callbacks.detection.rules.exploding_history import RunHistory, is_adaptive
from grad_callbacks.detection.rules.leeway import LEEWAY, NO_LEEWAY, Leeway
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import decay_per_layer
from grad_callbacks.measurement.loss_level import LOSS_LEVEL


class Condition(Enum):
    """What is wrong with a reading."""

    FIRST_STEP_TOO_LARGE = "before there is a usual norm, the update would leave nothing of the weights"
    STEP_TOO_LARGE = "a gradient far beyond the usual, whose update would change the weights too much"
    NORM_JUMPED = "the same for adaptive optimizers, which bound their updates"
    DIVERGED_EARLY = "the first updates changed the weights too much, and the loss has risen"
    UNSETTLED_EARLY = "the same after smaller updates, as those that RMSprop begins with: the loss often recovers"
    LOSS_DIVERGED = "the level of the loss is far above that at the start"
    PROGRESS_LOST = "half of what was learned is lost"
    SURGED = "updates far longer than usual, and a loss that has risen with them"
    GROWS_OVER_DEPTH = "the error grows on its way back through the layers"
    RECURRENCE_STUCK = "a recurrent network whose weights would multiply an error has learned nothing"
    BECAME_NONFINITE = "one of these was true, or nearly, one reading before the gradients became NaN or infinite"


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


def readings_needed(condition: Condition, run: RunHistory) -> int:
    """Return how many readings in a row must be wrong before this condition raises an alert."""
    limits = run.limits
    return {
        Condition.NORM_JUMPED: limits.jump_in_a_row,
        Condition.DIVERGED_EARLY: limits.diverged_early_in_a_row,
        Condition.UNSETTLED_EARLY: limits.unsettled_early_in_a_row,
        Condition.LOSS_DIVERGED: limits.loss_diverged_in_a_row,
        Condition.GROWS_OVER_DEPTH: limits.growth_in_a_row,
    }.get(condition, 1)


def is_large(reading: Reading, run: RunHistory) -> bool:
    """True if the norm is far beyond the usual one."""
    return reading.comparable_norm > run.limits.factor * run.baseline.level  # NaN during the warm-up


def may_become_nonfinite(reading: Reading, run: RunHistory) -> bool:
    """True for a reading that explains why the next one is not finite any more."""
    limits = run.limits
    if run.readings == 1:  # nothing to compare with: only what would leave little of the weights
        return reading.displacement > limits.near_first_update * limits.displacement
    reference = run.baseline.level if run.has_baseline else run.first_norm
    loss_is_high = abs(reading.loss) > limits.near_loss * run.first_loss
    return reading.comparable_norm > limits.factor * reference and (_is_too_large(reading, run) or loss_is_high)


def grows_over_depth(reading: Reading, run: RunHistory) -> bool:
    """True if the error grows too much over the layers or into a recurrent one."""
    error, limits = reading.error_profile, run.limits
    if run.is_recurrent and len(error) > 1:
        return bool(error[:-1].max() > limits.growth * error[-1])
    growth = limits.growth / limits.growth_divisor if _is_too_large(reading, run) else limits.growth
    if len(error) < limits.fitted_layers or not reading.error_early_to_late > growth:
        return False  # the fit takes long for many layers
    return decay_per_layer(error) ** (len(error) - 1) > growth


def may_grow(reading: Reading, run: RunHistory) -> bool:
    """True if an update that is too large would be enough for the error to grow too much."""
    error, limits = reading.error_profile, run.limits
    if run.is_recurrent and len(error) > 1:
        return grows_over_depth(reading, run)
    return len(error) >= limits.fitted_layers and reading.error_early_to_late > limits.growth / limits.growth_divisor


def leeway(run: RunHistory) -> Leeway:
    """Return for how long no condition can hold, nor nearly, if none does now and the error does not grow."""
    limits, surge = run.limits, run.surge
    if not run.has_baseline or run.is_early or run.has_just_jumped or surge.is_risen:
        return NO_LEEWAY
    readings = min(limits.lost_readings - 1 - run.lost_for, surge.losses_left, LEEWAY.most)
    if run.recurrence > limits.chaotic_powers and run.loss.count < limits.stuck_readings:
        readings = min(readings, limits.stuck_readings - 1 - run.loss.count)
    times = LEEWAY.rounding * min(limits.factor, limits.jump, limits.jump / limits.jump_divisor)
    highest = surge.highest
    if run.loss.scale > 0:
        highest = min(highest, LEEWAY.rounding * limits.rise * run.loss.scale)
    spare = run.loss.spare(highest)
    if readings < 1 or spare < 0:
        return NO_LEEWAY
    return Leeway(readings, times * run.baseline.lowest(LEEWAY.most), highest, spare)


def _is_too_large(reading: Reading, run: RunHistory) -> bool:
    return reading.displacement > run.limits.displacement


def _first_step_too_large(reading: Reading, run: RunHistory) -> bool:
    if run.has_baseline:
        return False
    limits = run.limits
    # A norm that shrinks is on its way to large weights, as in a regression on large targets.
    grows = reading.comparable_norm > run.last_norm
    if grows and reading.displacement > limits.growing_first_update * limits.displacement:
        return True
    most = math.inf
    if run.is_recurrent:  # a product of as many weights as there are time steps
        most = limits.recurrent_first_update
    elif len(reading.profile) >= limits.product_layers:
        most = limits.deep_first_update
    return reading.displacement > most * limits.displacement


def _step_too_large(reading: Reading, run: RunHistory) -> bool:
    return is_large(reading, run) and _is_too_large(reading, run) and _does_harm(reading, run)


def _does_harm(reading: Reading, run: RunHistory) -> bool:
    """False for a loss that has not risen, or not by much: a plateau is left, or a minimum is near."""
    limits, scale = run.limits, run.loss.scale
    if math.isnan(reading.loss) or math.isnan(run.loss_before):
        return True
    if reading.displacement > limits.harmful_update * limits.displacement:
        return True
    return reading.loss > run.loss_before + limits.harmful_rise * scale and reading.loss > limits.harmful_loss * scale


def _norm_jumped(reading: Reading, run: RunHistory) -> bool:
    if not is_adaptive(reading):
        return False
    limits = run.limits
    norm = min(reading.comparable_norm, reading.clip_at or math.inf)
    times = norm / max(run.baseline.level, run.baseline.highest)  # NaN before there is a baseline
    if math.isnan(reading.loss):
        return times > limits.jump
    return times > limits.jump / limits.jump_divisor and abs(reading.loss) > limits.loss_jump * run.loss.scale


# The next three are for adaptive optimizers: elsewhere noisy updates may be large, and those that are too large are
# seen before they are made.


def _has_left_the_start(reading: Reading, run: RunHistory) -> bool:
    limits = run.limits
    norm_is_up = reading.comparable_norm > limits.norm_rise * run.first_norm
    loss_is_up = abs(reading.loss) > limits.rise * run.first_loss
    return is_adaptive(reading) and run.is_early and norm_is_up and loss_is_up


def _diverged_early(reading: Reading, run: RunHistory) -> bool:
    large = run.limits.diverged_update * run.limits.displacement
    return _unsettled_early(reading, run) and run.largest_update > large


def _unsettled_early(reading: Reading, run: RunHistory) -> bool:
    return _has_left_the_start(reading, run) and run.largest_update > run.limits.displacement


def _loss_diverged(reading: Reading, run: RunHistory) -> bool:
    limits = run.limits
    norm_is_up = reading.comparable_norm > limits.norm_rise * run.baseline.level
    has_moved = _has_moved(run, limits.loss_diverged_divisor)
    return is_adaptive(reading) and norm_is_up and run.loss.risen > limits.rise and has_moved


def _progress_lost(reading: Reading, run: RunHistory) -> bool:
    limits = run.limits
    if not is_adaptive(reading):
        return False
    if run.has_just_jumped:
        is_over = run.loss.risen < limits.jump_is_over
        return is_over and run.lost_for >= limits.lost_after_jump and _has_moved(run, limits.progress_lost_divisor)
    return run.lost_for >= limits.lost_readings and 2 * run.large_while_lost >= run.lost_for


def _has_moved(run: RunHistory, divisor: float) -> bool:
    return run.largest_update > run.limits.displacement / divisor


def _surged(reading: Reading, run: RunHistory) -> bool:
    return run.surge.holds


def _recurrence_stuck(reading: Reading, run: RunHistory) -> bool:
    """True once, when a recurrent network that would explode should have learned something by now."""
    is_time = run.loss.count == run.limits.stuck_readings
    return run.recurrence > run.limits.chaotic_powers and is_time and run.loss.gained < LOSS_LEVEL.learned


# In this order: the first that holds is told.
CONDITIONS: dict[Condition, Callable[[Reading, RunHistory], bool]] = {
    Condition.FIRST_STEP_TOO_LARGE: _first_step_too_large,
    Condition.NORM_JUMPED: _norm_jumped,
    Condition.STEP_TOO_LARGE: _step_too_large,
    Condition.DIVERGED_EARLY: _diverged_early,
    Condition.UNSETTLED_EARLY: _unsettled_early,
    Condition.LOSS_DIVERGED: _loss_diverged,
    Condition.PROGRESS_LOST: _progress_lost,
    Condition.SURGED: _surged,
    Condition.GROWS_OVER_DEPTH: grows_over_depth,
    Condition.RECURRENCE_STUCK: _recurrence_stuck,
}
