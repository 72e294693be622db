"""Vanishing gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from grad_callbacks._utils.validation import at_least, fraction
from grad_callbacks.detection.plain_numbers import rounded
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.leeway import NO_LEEWAY, Leeway
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.detection.rules.vanishing_conditions import (
    Balance,
    Plateau,
    SpoiltProfile,
    decays,
    early_layers_move_less,
    first_half_is_dead,
    first_layer_is_cut_off,
    is_independent,
    loss_is_independent,
    norm_of_weights,
)
from grad_callbacks.detection.rules.vanishing_message import describe, describe_gone, faint_layers, guess
from grad_callbacks.detection.rules.vanishing_thresholds import LIMITS
from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import QuietBlock, Reading
from grad_callbacks.measurement.depth_profile import DEPTH
from grad_callbacks.measurement.loss_level import LossLevel


class Vanishing(Rule):
    """Alerts when the gradient dies out on its way back to the early layers or time steps, which then learn nothing.

    The size of a gradient says nothing (a loss multiplied by 1e-5 has a small one), its profile over depth does. Each
    of these is enough:

    * Still: for ``patience`` readings in a row the early layers' gradient is below ``ratio`` of the late layers', both
      at the ends and along the fitted decay per layer, in the weights or in the error at their outputs, or the
      first half of the layers has none at all (dead units); and an update changes the early layers by less than
      ``motion`` of their norm.
    * Stuck, since adaptive optimizers move weights whose gradients are noise: for 80 readings the early layers'
      gradient is below ``ratio``, or the first layer has none, or the early time steps' gradient is below
      ``through_time`` of the late ones'; and the loss is above half of where it began and not falling by a tenth of
      that: the last layers, or time steps, have learned what they can do alone.
    * Gone: in ``patience`` readings more than not, the gradient is so small in all layers at once that the loss does
      not depend on any weight, and the loss is above half of where it began: saturated outputs, dead units everywhere.
    * Spoilt by first steps that were too long, as those of Adam without a warm-up in a post-norm transformer (Liu et
      al. 2020, "Understanding the Difficulty of Training Transformers"): for ``patience`` readings the early layers'
      gradient is half of the way to ``ratio``, on a scale of logarithms, has come down by as much since the first
      reading, and the loss is above half of where it began.

    A decay is judged from five layers with weights on (embeddings not counted), since over fewer a single unlike layer
    looks like one; over three and four it must be below the square of ``ratio``. Dead units are judged from three.

    Args:
        ratio: Early over late gradient over depth, between 0 and 1.
        motion: Relative update of the early layers per step, between 0 and 1.
        patience: Readings in a row.
        through_time: Early over late gradient over the steps of a sequence, between 0 and 1.

    Raises:
        ValueError: If one of them is out of range.
    """

    kind = "vanishing"
    order = 10
    colour = "#6d5a9c"
    stops_learning = True
    may_follow_another = True

    def __init__(
        self,
        ratio: float = LIMITS.ratio,
        motion: float = LIMITS.motion,
        patience: int = LIMITS.patience,
        through_time: float = LIMITS.through_time,
    ) -> None:
        self.ratio = fraction("ratio", ratio)
        self.motion = fraction("motion", motion)
        self.patience = at_least("patience", patience, 1)
        self.through_time = fraction("through_time", through_time)
        self._loss = LossLevel()
        # Readings in a row:
        self._still = 0  # the gradient has vanished, and the early layers stand still
        self._stuck = Plateau()  # the early layers are cut off, and nothing more is learned
        self._stuck_in_time = Plateau()  # the same of the early time steps
        self._spoilt_for = 0  # the gradient has become small and was not so at the start
        self._spoilt = SpoiltProfile(self.ratio)
        self._gone = Balance()  # the loss depends on no weight, and most is still to be learned
        self._through_time = math.nan  # as last measured
        self._has_alerted = False

    @property
    def active(self) -> bool:
        """True while the conditions hold."""
        return self._ripe >= 1

    @property
    def near(self) -> bool:
        """True when an alert may come soon, so that its causes are worth watching."""
        return not self._has_alerted and self._ripe >= 1 / 2

    @property
    def _ripe(self) -> float:
        """For what share of the readings that it takes a condition has held."""
        lasting = max(self._still, self._spoilt_for, self._gone.lasting)
        return max(lasting / self.patience, max(self._stuck.count, self._stuck_in_time.count) / SPANS.stuck)

    def judge(self, reading: Reading) -> Alert | None:
        """Raise a critical alert when the conditions have held for long enough."""
        if not reading.is_finite or reading.overflow or reading.fill < 1 or reading.motion is None:
            return None
        self._loss.feed(reading.loss)
        is_over_depth = self._take_in_depth(reading)
        self._take_in_time(reading)
        if not self.active:
            self._has_alerted = False
            return None
        if self._has_alerted:
            return None
        self._has_alerted = True
        return self._alert_over_depth(reading) if is_over_depth else self._alert_over_time(reading)

    def leeway(self) -> Leeway:
        """None while it is active or near; else so far that a condition that began now is seen two readings early."""
        if self._has_alerted or self.near:
            return NO_LEEWAY
        lasting = max(self._still, self._spoilt_for, self._gone.lasting)
        stuck = max(self._stuck.count, self._stuck_in_time.count)
        return Leeway(max(0, min(self.patience - lasting, SPANS.stuck - stuck) - 2))

    def take_in(self, block: QuietBlock) -> None:
        """Count readings of which none raises an alert: those without any sign of it by their profile's ends alone."""
        first, bound = block.readings[0], self._spoilt.limit  # from which on nothing has decayed, by any condition
        has_begun = self._spoilt.has_begun or block.profiles.shape[1] < DEPTH.fitted
        is_plain = has_begun and not first.error_early_to_late < bound
        weights = norm_of_weights(first)
        are_alive = (block.profiles[:, :1] != 0).all(axis=1).tolist()
        for reading, ends, is_alive in zip(block.readings, block.early_to_late, are_alive, strict=True):
            if not is_plain or ends < bound or not is_alive:
                self.judge(reading)
                continue
            self._loss.feed(reading.loss)
            self._still = self._spoilt_for = 0
            self._stuck.follow(False, self._loss)
            self._gone.take_in(self._much_is_left and is_independent(reading, weights), self.patience)
            self._take_in_time(reading)

    @property
    def _much_is_left(self) -> bool:
        return 2 * self._loss.level > self._loss.scale

    def _take_in_depth(self, reading: Reading) -> bool:
        """Count the conditions over depth, and return whether any holds, however short."""
        seen = ((reading.profile, reading.early_to_late), (reading.error_profile, reading.error_early_to_late))
        has_decayed = any(decays(profile, self.ratio, ends) for profile, ends in seen)
        has_vanished = has_decayed or first_half_is_dead(reading)
        stands_still = has_vanished and early_layers_move_less(reading, self.motion)
        self._still = self._still + 1 if stands_still else 0
        is_cut_off = has_decayed or first_layer_is_cut_off(reading)
        self._stuck.follow(is_cut_off, self._loss)
        is_spoilt = self._spoilt.is_spoilt(reading.profile, reading.early_to_late) and self._much_is_left
        self._spoilt_for = self._spoilt_for + 1 if is_spoilt else 0
        self._gone.take_in(self._much_is_left and loss_is_independent(reading), self.patience)
        return has_vanished or is_cut_off or is_spoilt or self._gone.lasting > 0

    def _take_in_time(self, reading: Reading) -> None:
        """Count the condition over the steps of a sequence."""
        if math.isfinite(reading.through_time):
            self._through_time = reading.through_time
        self._stuck_in_time.follow(self._through_time < self.through_time, self._loss)

    def _alert_over_depth(self, reading: Reading) -> Alert:
        if self._gone.lasting >= self.patience:
            message, evidence, cause, advice = describe_gone(reading, self._loss.level)
            return self._alert(reading, reading.layers.names, message, evidence, cause, advice)
        message, evidence = describe(reading, self.ratio)
        if self._stuck.count >= SPANS.stuck:
            message += f"; the loss has not come down in {self._stuck.count} steps"
        return self._alert(reading, faint_layers(reading, self.ratio), message, evidence, *guess(reading))

    def _alert_over_time(self, reading: Reading) -> Alert:
        message = (
            f"the early steps of a sequence get {rounded(self._through_time)} of the late steps' gradient; "
            f"the loss has not come down in {self._stuck_in_time.count} steps"
        )
        evidence = {"through_time": self._through_time, "norm": reading.norm}
        advice = "use nn.LSTM or nn.GRU; initialise recurrent weights orthogonally; shorten the sequences"
        return self._alert(reading, (), message, evidence, "recurrence over many steps", advice)

    def _alert(
        self,
        reading: Reading,
        names: tuple[str, ...],
        message: str,
        evidence: dict[str, float],
        cause: str,
        advice: str,
    ) -> Alert:
        finite = Evidence({name: value for name, value in evidence.items() if math.isfinite(value)})
        return Alert(self.kind, "critical", reading.step, names, message, finite, cause, advice, reading.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "course": self._loss.state_dict(),
            "still": self._still,
            "idle": self._stuck.state_dict(),
            "began": self._spoilt.state(),
            "sunken": self._spoilt_for,
            "idle_in_time": self._stuck_in_time.state_dict(),
            "gone": self._gone.state_dict(),
            "time": self._through_time,
            "told": self._has_alerted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._loss.load_state_dict(state["course"])
        self._still = state["still"]
        self._stuck.load_state_dict(state["idle"])
        self._stuck_in_time.load_state_dict(state.get("idle_in_time", {}))  # an older version counted otherwise
        self._spoilt.restore(state["began"])
        self._spoilt_for = state["sunken"]
        self._gone.load_state_dict(state.get("gone", {}))  # an older version did not count it
        self._through_time, self._has_alerted = state["time"], state["told"]
