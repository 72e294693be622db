"""Alerts for the loggers that have alerts of their own."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from grad_callbacks.events import Alert

log = logging.getLogger("grad_callbacks")

LEVELS = {"warning": "WARN", "critical": "ERROR"}  # severity, and what W&B calls it


def announce(trainer: Trainer, alert: Alert) -> None:
    """Raise the alert in every W&B run among the Trainer's loggers, on rank zero; a failure is told and passed over.

    W&B sends one of the same title a minute, by Slack or e-mail as the user's settings there say.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if is_logger(logger, "WandbLogger"):
            _alert(logger, alert)


def is_logger(logger: Logger, name: str) -> bool:
    """True for a logger of that class or one made from it; by name: those of `pytorch_lightning` are other classes."""
    return any(cls.__name__ == name for cls in type(logger).__mro__)


def _alert(logger: Any, alert: Alert) -> None:
    text = (
        f"Step {alert.step}: {alert.message.rstrip('.')}. Likely cause: {alert.cause.rstrip('.')}. "
        f"Advice: {alert.advice.rstrip('.')}."
    )
    try:
        logger.experiment.alert(title=f"{alert.kind} gradients", text=text, level=LEVELS[alert.severity])
    except Exception as error:  # an alert that does not get through costs a line, not the training
        log.warning("the alert could not be raised in W&B: %s", error)
