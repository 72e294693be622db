"""Announce what happened at a step: in the log, in W&B, and to the user's own callable."""

from __future__ import annotations

import logging
from collections.abc import Callable

from grad_callbacks._utils.barrier import Barrier
from grad_callbacks._utils.lightning import Trainer
from grad_callbacks.callbacks._wandb import raise_in_wandb
from grad_callbacks.events import Alert
from grad_callbacks.reporting.alert_text import alert_lines, intervention_line, trial_line
from grad_callbacks.reporting.step_result import StepResult

log = logging.getLogger("grad_callbacks")


class Announcer:
    """Announces alerts, trials and interventions on rank zero, for one run."""

    def __init__(self) -> None:
        self._barrier = Barrier()

    def announce(self, trainer: Trainer, result: StepResult, on_alert: Callable[[Alert], object] | None) -> None:
        """Announce what happened at a step.

        Args:
            trainer: Is training.
            result: What happened.
            on_alert: Called with each alert; once it has raised, it is not called again in this run.
        """
        if not trainer.is_global_zero:
            return
        for alert in result.alerts:
            log.warning("\n  ".join(alert_lines(alert)))
            raise_in_wandb(trainer, alert)
            if on_alert is not None:
                self._barrier.call(on_alert, on_alert, alert, default=None)
        for trial in result.trials:
            log.warning(trial_line(trial))
        for made in result.interventions:
            log.warning(intervention_line(made))
