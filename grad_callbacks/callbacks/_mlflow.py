"""Write to the MLflow runs among the Trainer's loggers: config at the start, trials, tables and pictures at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard, cast

from grad_callbacks._utils.lightning import Logger, MLFlowLogger, Trainer, rank_zero_warn
from grad_callbacks.callbacks._loggers import mlflow_store
from grad_callbacks.callbacks._wandb import is_logger
from grad_callbacks.events import TrialResult
from grad_callbacks.measurement.histograms import Histograms
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_series import StepSeries

if TYPE_CHECKING:
    from grad_callbacks.tracking.system import SystemMetrics


class MLflowRuns:
    """Writes to every MLflow run, on rank zero; a failure is a warning, never an exception.

    Attributes:
        shows_pictures: There is an MLflow run that will show histograms.
        reported: The runs that the report was written to, in words.
    """

    def __init__(self) -> None:
        self.shows_pictures = False
        self.reported: list[str] = []
        self._environment: dict[str, str] = {}
        self._system: list[SystemMetrics] = []

    def begin(self, trainer: Trainer) -> None:
        """Write the config and the environment, and start the system metrics if MLflow's own switch asks for them."""
        loggers = _mlflow_loggers(trainer)
        self.shows_pictures, self.reported = bool(loggers), []
        if not loggers:
            return
        from grad_callbacks.tracking.context import record_context  # MLflow takes seconds to import: only where used
        from grad_callbacks.tracking.system import SystemMetrics, wants_system_metrics

        for logger in loggers:
            try:
                client, run_id = logger.experiment, str(logger.run_id)
                known = getattr(logger, "environment", None)  # of a JournaledMLFlowLogger, which sees to these itself
                self._environment = record_context(client, run_id, cast(Any, trainer), known)
                if known is None and wants_system_metrics():
                    self._system.append(SystemMetrics(logger))
                    self._system[-1].start()
            except Exception as error:  # a tracking server that is down costs a warning, not the training
                _warn("config and environment", logger, error)

    def record_trial(self, trainer: Trainer, result: TrialResult) -> None:
        """Write a trial: a child run for each of its arms."""
        loggers = _mlflow_loggers(trainer)
        if not loggers:
            return
        from grad_callbacks.tracking.journal.child_runs import record_trial

        for logger in loggers:
            try:
                record_trial(logger, result)
            except Exception as error:
                _warn("trial", logger, error)

    def end(self, trainer: Trainer, record: Record, step_series: StepSeries, histograms: Histograms) -> None:
        """Write tags, tables, pictures, page and report; nothing of a run that failed before its first step.

        Args:
            trainer: Has trained.
            record: What was found and done.
            step_series: The few numbers of each step.
            histograms: The gradients' entries at a few steps.
        """
        while self._system:
            self._system.pop().stop()
        loggers = _mlflow_loggers(trainer)
        if not loggers or record.is_empty:
            return  # a run that failed before its first step has no verdict
        from grad_callbacks.tracking.run_page.run_report import RunReport, record_report

        try:
            history = record.history()
        except ModuleNotFoundError as error:  # of an MLflow without pandas
            rank_zero_warn(f"the gradients' report was not written to MLflow: {error}")
            return

        for logger in loggers:
            try:
                report = RunReport(
                    verdict=record.verdict,
                    outcome=record.outcome,
                    alerts=tuple(record.alerts),
                    interventions=tuple(record.interventions),
                    history=history,
                    report=record.report(),
                    name=str(getattr(logger, "_run_name", None) or ""),
                    summary=tuple(record.summary()),
                    steps=step_series.to_frame(),
                    histograms=tuple(histograms.to_host()),
                    environment=self._environment,
                )
                record_report(logger.experiment, str(logger.run_id), report)
                self.reported.append(f"MLflow run {logger.run_id}, gradients/run.html, at {mlflow_store(logger)}")
            except Exception as error:  # nor does it cost what has been trained
                _warn("gradients' report", logger, error)


def _mlflow_loggers(trainer: Trainer) -> list[MLFlowLogger]:
    return [logger for logger in trainer.loggers if _is_mlflow(logger)] if trainer.is_global_zero else []


def _is_mlflow(logger: Logger) -> TypeGuard[MLFlowLogger]:
    return is_logger(logger, "MLFlowLogger")


def _warn(what: str, logger: MLFlowLogger, error: Exception) -> None:
    from grad_callbacks.tracking.secrets.masking import mask  # an error of a store may print its address

    rank_zero_warn(f"the {what} could not be written to MLflow run {logger.run_id}: {mask(str(error))}")
