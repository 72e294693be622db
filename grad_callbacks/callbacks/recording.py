"""Hand the finished story to the MLflow runs among the Trainer's loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.utilities import rank_zero_warn

if TYPE_CHECKING:
    from grad_callbacks.callbacks.monitor import GradientMonitor


def record(trainer: Trainer, monitor: GradientMonitor) -> None:
    """Write tags, tables, picture and report to every MLflow run; a failure is a warning, never an exception."""
    loggers = [logger for logger in trainer.loggers if _is_mlflow(logger)]
    history = monitor.history()
    if not loggers or not trainer.is_global_zero or history.empty:
        return  # a run that failed before its first step has no verdict
    from grad_callbacks.tracking import Story, record_story  # MLflow takes seconds to import: only where it is used

    story = Story(
        verdict=monitor.verdict,
        outcome=monitor.outcome,
        alerts=tuple(monitor.alerts),
        interventions=tuple(monitor.interventions),
        history=history,
        report=monitor.report(),
    )
    for logger in loggers:
        try:
            record_story(logger.experiment, str(logger.run_id), story)
        except Exception as error:  # a tracking server that is down costs a warning, not the training
            rank_zero_warn(f"the gradients' story could not be written to MLflow run {logger.run_id}: {error}")


def _is_mlflow(logger: Logger) -> TypeGuard[MLFlowLogger]:
    # By name: that of `pytorch_lightning` is another class.
    return any(cls.__name__ == "MLFlowLogger" for cls in type(logger).__mro__)
