"""A reading whose numbers are still on the device, or being copied to the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch.distributed as dist
from torch import Tensor

from grad_callbacks.measurement.device_transfer import DeviceTransfer
from grad_callbacks.measurement.measure import Measurement, measure
from grad_callbacks.measurement.reading import Reading
from grad_callbacks.measurement.signal import Signal
from grad_callbacks.measurement.update_ratio import StepPlan, UpdateRatios


@dataclass(frozen=True)
class About:
    """What a reading says besides the measured numbers (see :class:`~grad_callbacks.measurement.reading.Reading`).

    Attributes:
        step: The step's number.
        optimizer: Index of the optimizer.
        under_scaler: A loss scaler is in use, so a non-finite gradient is an overflow.
        fill: Share of the accumulation window's batches that were seen.
        clip_at: The norm to which the gradient is clipped afterwards, e.g. by the Trainer.
        loss: The training loss of the step, a scalar tensor; None if it is unknown.
    """

    step: int
    optimizer: int = 0
    under_scaler: bool = False
    fill: float = 1.0
    clip_at: float | None = None
    loss: Tensor | None = None


class PendingReading:
    """A step's numbers on their way from the device to the host.

    Attributes:
        measurement: The numbers on the device.
        plan: How the optimizer will turn the gradients into a step.
    """

    def __init__(
        self,
        measurement: Measurement,
        update_ratios: UpdateRatios,
        plan: StepPlan,
        about: About,
        signal: Signal | None,
    ) -> None:
        self.measurement = measurement
        self.plan = plan
        self._update_ratios = update_ratios
        self._about = about
        self._signal = signal
        numbers = [measurement.norms, measurement.present, measurement.scalars, *measurement.companions.values()]
        self._transfer = DeviceTransfer(numbers)

    @classmethod
    def take(
        cls,
        update_ratios: UpdateRatios,
        plan: StepPlan,
        about: About,
        loss_scale: float | Tensor = 1.0,
        of_pass: Sequence[Tensor | None] = (None, None, None, None, None),
        group: dist.ProcessGroup | None = None,
        signal: Signal | None = None,
    ) -> PendingReading | None:
        """Measure gradients, and weights if it is time; None if no parameter has a gradient.

        Args:
            update_ratios: Has the layers, and measures how far steps move them.
            plan: How the optimizer will turn the gradients into a step.
            about: What the reading says besides the measured numbers.
            loss_scale: Factor that the gradients still contain.
            of_pass: What forward and backward pass have shown, on the device: ``through_time``, ``recurrence``,
                ``attention_score`` and ``attention_entropy`` as in the reading, and the numbers for ``signal``.
            group: The processes that train replicas, each with a loss of its own.
            signal: Keeps what was last measured of the layers' outputs; None if nothing is.
        """
        if not update_ratios.layers.parameters:
            return None
        scalars = (about.loss, *of_pass)
        measurement = measure(update_ratios.layers, loss_scale, update_ratios.before_step(), scalars, group)
        if measurement is None:
            update_ratios.void_step()
            return None
        return cls(measurement, update_ratios, plan, about, signal)

    @cached_property
    def reading(self) -> Reading:
        """The reading. The first use waits until the numbers have arrived."""
        norms, present, scalars, *sums = self._transfer.wait()
        loss, through_time, recurrence, attention_score, attention_entropy, *rest = scalars.tolist()
        self._update_ratios.arrive(dict(zip(self.measurement.companions, sums, strict=True)))
        is_finite = bool(np.logical_and.reduce(np.isfinite(norms)))
        motion, displacement, moved = None, math.nan, math.nan
        if is_finite:
            motion, displacement = self._update_ratios.predict(norms, self._about.clip_at, self.plan)
            moved = self._update_ratios.moved
        else:
            self._update_ratios.void_step()
        return Reading(
            step=self._about.step,
            layers=self.measurement.layers,
            norms=norms,
            present=present > 0,
            overflow=self._about.under_scaler and not is_finite,
            fill=self._about.fill,
            optimizer=self._about.optimizer,
            weight_norms=self._update_ratios.weight_norms,
            motion=motion,
            displacement=displacement,
            moved=moved,
            clip_at=self._about.clip_at,
            squares_decay=self.plan.squares_decay,
            loss=loss,
            has_loss=self._about.loss is not None,
            through_time=through_time,
            recurrence=recurrence,
            attention_score=attention_score,
            attention_entropy=attention_entropy,
            **({} if self._signal is None else self._signal.arrive(rest)),
        )
