"""Readings of steps in a row in which nothing can be wrong, to be taken in together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grad_callbacks.measurement.batch import Batch
from grad_callbacks.measurement.depth_profile import DEPTH
from grad_callbacks.measurement.reading import FloatArray, Reading
from grad_callbacks.measurement.update_ratio import StepPlan, UpdateRatios

_CONSTANT = (*(f.name for f in fields(Reading)), "is_complete", "layer_present", "profiled", "error_profile")
_CONSTANT += ("error_early_to_late",)


class QuietReading(Reading):
    """A reading with finite gradients of which most is as in the one before; what is not is computed when asked for.

    Made by :class:`QuietTemplate`.
    """

    _update_ratios: UpdateRatios
    _plan: StepPlan

    @cached_property
    def _predicted(self) -> tuple[FloatArray, float]:
        return self._update_ratios.predict(self.norms, self.clip_at, self._plan)

    @cached_property
    def motion(self) -> FloatArray | None:
        """How far this gradient moves each layer (see :class:`Reading`)."""
        return self._predicted[0]

    @cached_property
    def displacement(self) -> float:
        """How far this gradient moves all weights together (see :class:`Reading`)."""
        return self._predicted[1]


class QuietTemplate:
    """Makes readings that share with an earlier one all that is measured only now and then.

    Args:
        reading: The latest reading that was measured in full.
        update_ratios: Has the motion that was measured last.
    """

    def __init__(self, reading: Reading, update_ratios: UpdateRatios) -> None:
        self._shared = {name: getattr(reading, name) for name in _CONSTANT}
        for name in ("motion", "displacement"):
            del self._shared[name]
        self._shared |= {
            "through_time": math.nan,
            "recurrence": math.nan,
            "attention_score": math.nan,
            "attention_entropy": math.nan,
            "overflow": False,
            "weight_norms": update_ratios.weight_norms,
            "moved": update_ratios.moved,
            "nonfinite": 0,
            "is_finite": True,
            "_update_ratios": update_ratios.as_now(),
            "_by_layer": update_ratios.by_layer,
        }

    def is_current(self, update_ratios: UpdateRatios) -> bool:
        """True if the weights and how they move have not been measured again."""
        mine = self._shared
        return mine["weight_norms"] is update_ratios.weight_norms and mine["_by_layer"] is update_ratios.by_layer

    def reading(self, step: int, norms: FloatArray, norm: float, loss: float, plan: StepPlan) -> QuietReading:
        """Return the reading of a step over a whole accumulation window.

        Args:
            step: Its number.
            norms: L2 norm of each parameter's gradient.
            norm: The global norm.
            loss: The training loss; NaN if it is unknown.
            plan: How the optimizer turns the gradients into a step.
        """
        made = QuietReading.__new__(QuietReading)
        # Twenty fields of a frozen dataclass take longer to set than all the rest.
        own = {"step": step, "norms": norms, "norm": norm, "comparable_norm": norm, "loss": loss, "_plan": plan}
        made.__dict__.update(self._shared, **own)
        return made


class QuietBlock:
    """Readings in a row, all over the same layers, with what rules ask of them computed for all at once.

    Attributes:
        readings: The readings, in order.
        plans: How the optimizer turned each into a step.
        batch: The batch of the last.
        count: Readings so far in the run, these included.
    """

    def __init__(self, readings: Sequence[QuietReading], plans: Sequence[StepPlan], batch: Batch, count: int) -> None:
        self.readings, self.plans, self.batch, self.count = readings, plans, batch, count
        self.norms = [reading.norm for reading in readings]
        self.losses = [reading.loss for reading in readings]
        self._take_layers()
        self._take_profiles()

    def __len__(self) -> int:
        return len(self.readings)

    @property
    def latest(self) -> QuietReading:
        """The last reading."""
        return self.readings[-1]

    @property
    def is_adaptive(self) -> bool:
        """True where the size of an update does not follow from its gradient, as with Adam."""
        return self.plans[-1].reach is None

    def _take_layers(self) -> None:
        first = self.readings[0]
        layers = first.layers
        self.norms_by_parameter: NDArray[np.float64] = np.stack([reading.norms for reading in self.readings])
        self.layer_norms = np.sqrt(layers.sums_over_parameters(self.norms_by_parameter**2))
        if first.is_complete and layers.root_entries is not None:
            self.layer_rms = self.layer_norms / layers.root_entries
        else:
            entries = layers.sum_over_parameters(np.where(first.present, layers.numel, 0.0))
            with np.errstate(divide="ignore", invalid="ignore"):
                self.layer_rms = np.where(entries > 0, self.layer_norms / np.sqrt(entries), np.nan)
        self._hand_out(layer_norms=self.layer_norms, layer_rms=self.layer_rms)

    def _take_profiles(self) -> None:
        """As :func:`~grad_callbacks.measurement.depth_profile.early_to_late`, for all at once."""
        self.profiles: NDArray[np.float64] = self.layer_rms[:, self.readings[0].profiled]
        self.early_to_late = [math.nan] * len(self.readings)
        third = self.profiles.shape[1] // DEPTH.parts
        if third:
            late = np.maximum.reduce(self.profiles[:, -third:], axis=1).tolist()
            early = np.sort(self.profiles[:, :third], axis=1)
            sums = (early[:, third // 2] + early[:, (third - 1) // 2]).tolist()
            pairs = zip(sums, late, strict=True)
            self.early_to_late = [both / 2 / last if last > 0 else math.nan for both, last in pairs]
        self._hand_out(profile=self.profiles, early_to_late=self.early_to_late)

    def predict_displacements(self) -> None:
        """Compute for all at once what each would for itself when asked."""
        first, norms = self.readings[0], self.norms_by_parameter
        self._hand_out(displacement=first._update_ratios.displacements(norms, first.clip_at, self.plans))

    def _hand_out(self, **values: Any) -> None:
        for name, column in values.items():
            for reading, value in zip(self.readings, column, strict=True):
                vars(reading)[name] = value


def shared_settings(groups: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what of the parameter groups decides on a step, to see whether anything has changed."""
    return [
        (
            _number(group.get("lr")),
            group.get("weight_decay"),
            group.get("momentum"),
            group.get("dampening"),
            group.get("betas"),
            group.get("alpha"),
        )
        for group in groups
    ]


def _number(rate: Any) -> Any:
    return float(rate) if isinstance(rate, Tensor) else rate  # a tensor is changed in place
