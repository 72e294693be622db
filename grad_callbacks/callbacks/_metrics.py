"""The few scalars that go to the Trainer's loggers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from grad_callbacks._utils.lightning import Trainer
from grad_callbacks.engine.engine import Engine
from grad_callbacks.events import Alert
from grad_callbacks.reporting.step_result import StepResult


class MetricsLog:
    """Sends the metrics of the latest steps to the Trainer's loggers, when they are due.

    They are due at the first measured step, every ``log_every_n_steps`` of the Trainer, and at every alert and
    intervention.
    """

    def __init__(self) -> None:
        self.is_due = False
        self._latest: dict[int, StepResult] = {}  # by optimizer
        self._attention: dict[int, dict[str, float]] = {}  # the same, as last measured
        self._sent: dict[int, int] = {}  # for each optimizer the last step whose metrics were sent

    def note_result(self, index: int, result: StepResult) -> None:
        """Keep what happened at the latest step of an optimizer."""
        self._latest[index] = result
        reading = result.reading
        if math.isfinite(reading.attention_entropy):
            self._attention[index] = {
                "attention_entropy": reading.attention_entropy,
                "attention_score": reading.attention_score,
            }
        self.is_due |= bool(result.alerts or result.interventions)

    def note_step(self, trainer: Trainer, engine: Engine, seen: int, measured: int) -> None:
        """See whether a step makes the metrics due.

        Args:
            trainer: Is training.
            engine: Has just seen the step.
            seen: Steps that it had seen before.
            measured: Steps that it had measured before.
        """
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        self.is_due |= engine.measured > measured and measured == 0
        self.is_due |= bool(engine.seen > seen and every and engine.seen % every == 0)

    def send(self, trainer: Trainer, engines: Mapping[int, Engine], alerts: Sequence[Alert]) -> None:
        """Send the metrics of each optimizer's latest step, if they were not sent yet."""
        several = len(trainer.optimizers) > 1
        for index, result in self._latest.items():
            if self._sent.get(index) == result.reading.step:
                continue  # nothing new: it steps seldom, or an accelerator's numbers are still to come
            self.is_due, self._sent[index] = False, result.reading.step
            count = sum(alert.optimizer == index for alert in alerts)
            attention = self._attention.get(index)
            values = metrics(result, engines[index], count, attention, suffix=f"_{index}" if several else "")
            for logger in trainer.loggers:
                logger.log_metrics(values, step=result.reading.step)

    def finish(self, trainer: Trainer, engines: Mapping[int, Engine], alerts: Sequence[Alert]) -> None:
        """Send what was not sent yet, and let go of the results, which hold model and optimizer."""
        self.send(trainer, engines, alerts)
        self._latest = {}


def metrics(
    result: StepResult, engine: Engine, alerts: int, attention: Mapping[str, float] | None = None, suffix: str = ""
) -> dict[str, float]:
    """Return the metrics of a step; values that are not finite are left out, loggers would store them as 1e308.

    Args:
        result: The step.
        engine: The engine that took it.
        alerts: Number of alerts so far.
        attention: Score and entropy of its attention; None where there is none.
        suffix: What distinguishes the optimizer's keys.
    """
    reading, ratios = result.reading, engine.gauge.update_ratios.by_layer
    known = ratios[np.isfinite(ratios)]
    values = {
        "norm": reading.norm,
        "norm_clipped": result.norm_clipped,
        "clip_coef": result.coefficient,
        "decay_per_layer": reading.decay_per_layer,
        "update_ratio_min": float(known.min()) if len(known) else math.nan,
        "update_ratio_max": float(known.max()) if len(known) else math.nan,
        "nonfinite_steps": float(engine.nonfinite_steps),
        "alerts": float(alerts),
        "lr_scale": result.lr_scale,
        "lr_effective": result.lr_effective,
        **(attention or {}),
    }
    return {f"grad/{name}{suffix}": value for name, value in values.items() if math.isfinite(value)}
