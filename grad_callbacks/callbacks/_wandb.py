"""Alerts in W&B, which sends them on by Slack or e-mail."""

from __future__ import annotations

import logging
from typing import Any

from grad_callbacks._utils.lightning import Logger, Trainer
from grad_callbacks.events import Alert
from grad_callbacks.reporting.alert_text import alert_lines, kind_text

log = logging.getLogger("grad_callbacks")

LEVELS = {"warning": "WARN", "critical": "ERROR"}  # severity, and what W&B calls it


def raise_in_wandb(trainer: Trainer, alert: Alert) -> None:
    """Raise the alert in every W&B run among the Trainer's loggers; a failure is logged.

    W&B sends one alert of the same title per minute, by Slack or e-mail as the user's settings there say.
    """
    for logger in trainer.loggers:
        if is_logger(logger, "WandbLogger"):
            _raise(logger, alert)


def is_logger(logger: Logger, name: str) -> bool:
    """True for a logger of that class or a subclass; by name, since those of `pytorch_lightning` are other classes."""
    return any(cls.__name__ == name for cls in type(logger).__mro__)


def _raise(logger: Any, alert: Alert) -> None:
    try:
        text = "\n".join(alert_lines(alert))
        logger.experiment.alert(title=kind_text(alert.kind), text=text, level=LEVELS[alert.severity])
    except Exception as error:  # the training goes on
        log.warning("the alert could not be raised in W&B: %s", error)
