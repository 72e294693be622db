"""All probes of a case, each run when it is first needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import torch
from numpy import isfinite
from torch import nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.activations import Activity
from grad_callbacks.detection.diagnosis.batch_outlier import BatchEvidence
from grad_callbacks.detection.diagnosis.case import Case
from grad_callbacks.detection.diagnosis.exponent import Exponent, largest_exponent
from grad_callbacks.detection.diagnosis.first_nonfinite import NonFiniteOrigin, first_nonfinite
from grad_callbacks.detection.diagnosis.model_structure import Structure
from grad_callbacks.detection.diagnosis.signal_flow import Flow, examine
from grad_callbacks.detection.diagnosis.step_trial import StepEvidence, loss_of, try_step
from grad_callbacks.detection.diagnosis.weight_gains import error_factor, spectral_radii, weight_gains
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.events import Alert


@dataclass(frozen=True)
class ProbeThresholds(Thresholds):
    """Thresholds of what the probes say about a case."""

    initialisation_matters: int = threshold(
        100, "steps for which the initial gains still matter", unit="steps", source="not measured"
    )
    raised_rate: float = threshold(
        3.0,
        "a learning rate beyond this has been raised",
        unit="x rate at the start",
        source="schedules other than warm-ups rise less; not measured",
    )
    grown_weights: float = threshold(
        1.5,
        "a layer's weights beyond this have grown in training",
        unit="x first size",
        source="they seldom grow so in the few steps before an alert; not measured",
    )
    layers_per_norm: int = threshold(
        3, "layers for one normalisation at most, for gains not to matter", unit="layers", source="not measured"
    )
    diverging_from_best: float = threshold(
        3.0, "a loss beyond this, and beyond the first one, is diverging", unit="x lowest loss", source="not measured"
    )


PROBE_LIMITS = ProbeThresholds()


class Probes:
    """All probes of a case.

    Args:
        alert: The alert whose cause is looked for.
        case: What is known about its step.
    """

    def __init__(self, alert: Alert, case: Case) -> None:
        self.alert = alert
        self.case = case

    @cached_property
    def flow(self) -> Flow:
        """Signal and error of the batch: one forward and one backward pass."""
        # An explosion's step, once taken, has changed the weights too much.
        is_gone = self.case.is_late and self.alert.kind == "exploding"
        return examine(self.case.model, None if is_gone else self.case.replay)

    @property
    def structure(self) -> Structure:
        """How the model is built."""
        return self.flow.structure

    @cached_property
    def activities(self) -> dict[str, Activity]:
        """What the activations did: in the step itself if it was watched, else in the replay."""
        seen = self.case.activations.read() if self.case.activations is not None else {}
        return seen or self.flow.activities

    @cached_property
    def activation(self) -> str:
        """The model's most frequent activation, or the likely one if it is called as a function."""
        kinds = [activity.kind for activity in self.activities.values()]
        return self.structure.activation or max(kinds, key=kinds.count, default="")

    @cached_property
    def gains(self) -> dict[str, float]:
        """The weights' gains by layer: before the first step if known, else now. Recurrent weights are left out."""
        gains = self.case.first_gains if self.case.first_gains is not None else weight_gains(self.case.model)
        return {name: gain for name, gain in gains.items() if "weight_hh" not in name}

    @cached_property
    def growth_of_weights(self) -> float:
        """Size of the weights that grew most, over that before the first step; NaN if unknown."""
        if self.case.first_gains is None:
            return math.nan
        now = weight_gains(self.case.model)
        grown = [now[name] / first for name, first in self.case.first_gains.items() if first > 0 and name in now]
        return max(grown, default=math.nan)

    @property
    def have_weights_grown(self) -> bool:
        """True if steps have made a layer's weights far larger than they began."""
        return self.growth_of_weights > PROBE_LIMITS.grown_weights

    @cached_property
    def gain(self) -> float:
        """The median gain of the hidden layers; NaN without any."""
        hidden = list(self.gains.values())[:-1] or list(self.gains.values())
        return median(hidden) if hidden else math.nan

    @property
    def reflects_initialisation(self) -> bool:
        """True if the gains are those of the initialisation, and it is early enough for them to matter."""
        return self.alert.step <= (PROBE_LIMITS.initialisation_matters if self.case.first_gains is not None else 0)

    @cached_property
    def mean_field(self) -> float:
        """The factor per layer going back that gain and activation give by theory; NaN if unknown."""
        return error_factor(self.activation, self.gain, self.structure.depth) if self.gain == self.gain else math.nan

    @property
    def is_normalised(self) -> bool:
        """True if there is a normalisation for at least every third layer, so that the gains do not matter."""
        return PROBE_LIMITS.layers_per_norm * self.structure.norms >= max(1, self.structure.depth)

    @cached_property
    def radius(self) -> float:
        """The largest spectral radius of a plain recurrent weight as it is now; NaN without any."""
        return max(spectral_radii(self.case.model).values(), default=math.nan)

    @cached_property
    def first_radius(self) -> float:
        """The same before the first step: a random matrix's is its gain (Girko's circular law). NaN if unknown."""
        known = self.case.first_gains
        if known is None:
            return self.radius
        plain = spectral_radii(self.case.model)
        return max((gain for name, gain in known.items() if name in plain), default=math.nan)

    @property
    def loss(self) -> float:
        """The loss of the step."""
        reading = self.case.reading
        return reading.loss if math.isnan(self.case.loss) and reading is not None else self.case.loss

    @property
    def first_loss(self) -> float:
        """The loss of the untrained weights; NaN if the losses do not go back so far."""
        known = [*self.case.losses, self.loss]
        return known[0] if len(known) > self.alert.step else math.nan

    @cached_property
    def batch(self) -> BatchEvidence:
        """How the batch compares with its neighbours."""
        return BatchEvidence.of(self.case.batch, self.case.previous_batch, self.loss, self.case.losses)

    @cached_property
    def previous_loss_now(self) -> float:
        """The loss of the batch before, with the weights as they are: one forward pass. NaN if unknown."""
        return math.nan if self.case.is_late else loss_of(self.case.model, self.case.replay_previous)

    @property
    def last_step_ratio(self) -> float:
        """Loss of the batch before, after its own step over before it; NaN if unknown."""
        known = self.case.losses[-1] if self.case.losses else math.nan
        return self.previous_loss_now / known if known > 0 and math.isfinite(known) else math.nan

    @cached_property
    def step(self) -> StepEvidence:
        """What the step does to the loss of its own batch: tried, or just computed again if it was taken."""
        case = self.case
        if case.replay is None:
            return StepEvidence()
        if case.is_late:
            return StepEvidence(self.loss, loss_of(case.model, case.replay))
        return try_step(case.model, case.optimizer, case.replay, case.rates) if case.optimizer else StepEvidence()

    @cached_property
    def origin(self) -> NonFiniteOrigin:
        """Where the first non-finite value comes from."""
        if self.case.replay is None or self._has_bad_weights_now:
            return NonFiniteOrigin("weights") if self.has_bad_weights else NonFiniteOrigin()
        scaled = self.case.reading is not None and self.case.reading.overflow
        # A scaler's scale is at 2 by the time an overflow is alarming.
        return first_nonfinite(self.case.model, self.case.replay, 2.0 if scaled else 1.0)

    @cached_property
    def exponent(self) -> Exponent:
        """The exponential with the largest argument: one forward pass. None is known of a step that was taken."""
        return largest_exponent(self.case.model, None if self.case.is_late else self.case.replay)

    @cached_property
    def has_bad_weights(self) -> bool:
        """True if a weight was NaN or infinite before the step."""
        reading = self.case.reading
        if not self.case.is_late:
            return self._has_bad_weights_now
        return reading is not None and reading.weight_norms is not None and not isfinite(reading.weight_norms).all()

    @cached_property
    def _has_bad_weights_now(self) -> bool:
        return any(not bool(torch.isfinite(parameter).all()) for parameter in self.case.model.parameters())

    @property
    def is_diverging(self) -> bool:
        """True if the loss was rising before the step."""
        known = [value for value in self.case.losses if math.isfinite(value)]
        if any(not math.isfinite(value) for value in self.case.losses):
            return True
        if len(known) < 2:
            return False
        return known[-1] > max(PROBE_LIMITS.diverging_from_best * abs(min(known)), known[0])

    @property
    def explosion_before(self) -> Alert | None:
        """The explosion that this alert may be a consequence of: the first of those that led up to it."""
        found, step = None, self.alert.step
        for earlier in reversed(self.case.earlier):
            if earlier.kind == "exploding" and 0 <= step - earlier.step <= SPANS.recent:
                found, step = earlier, earlier.step
        return found

    @cached_property
    def is_adaptive(self) -> bool:
        """True for Adam and its variants."""
        return self.case.optimizer is not None and "betas" in self.case.optimizer.param_groups[0]

    @cached_property
    def is_warmed_up(self) -> bool:
        """True if a learning rate began below its later values, or below the rate its schedule was given."""
        groups = self.case.optimizer.param_groups if self.case.optimizer is not None else []
        first = self.case.first_rates or [group["lr"] for group in groups]
        pairs = zip(groups, self.case.highest_rates or first, strict=False)
        later = [max(group["lr"], rate, group.get("initial_lr", rate)) for group, rate in pairs]
        return any(rate > begun and not math.isclose(rate, begun) for rate, begun in zip(later, first, strict=False))

    @property
    def is_rate_raised(self) -> bool:
        """True if a learning rate is far above its first value and the rate its schedule was given."""
        groups = self.case.optimizer.param_groups if self.case.optimizer is not None else []
        first = self.case.first_rates or [group["lr"] for group in groups]
        usual = [max(rate, group.get("initial_lr", rate)) for rate, group in zip(first, groups, strict=False)]
        return any(group["lr"] > PROBE_LIMITS.raised_rate * rate for group, rate in zip(groups, usual, strict=False))

    def module(self, name: str) -> nn.Module | None:
        """Return the module of a layer; None if its name is no module's."""
        return dict(self.case.model.named_modules()).get(name)
