"""Child runs: one for each arm of a trial, below the run in which the trial was held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from grad_callbacks.events import TrialResult
from grad_callbacks.tracking.journal.entries import batch_entries, status_entry
from grad_callbacks.tracking.journal.format import Entry, now
from grad_callbacks.tracking.journal.tags import PARENT_TAG, TRIAL_TAG

if TYPE_CHECKING:
    from lightning.pytorch.loggers import MLFlowLogger


@runtime_checkable
class LogsChildRuns(Protocol):
    """A logger with a journal, such as ``JournaledMLFlowLogger``."""

    def log_child(self, name: str, tags: Mapping[str, str], entries: Sequence[Entry]) -> Any:
        """Log a run that is already over."""


def record_trial(logger: MLFlowLogger, result: TrialResult) -> None:
    """Create a child run for each arm.

    =====================  ================================================
    name                   ``trial 41: Rollback``
    metric ``trial/loss``  training loss at each step of the arm
    ``trial/score``        loss on the held-out batches, if it is finite
    tag ``grad.trial``     ``won`` or ``lost``
    ``grad.trial_arm``     the remedy, or ``none``
    ``grad.trial_step``    the step of the run at which it was held
    =====================  ================================================
    """
    from mlflow.entities import Metric

    for arm, losses in result.losses.items():
        name = f"trial {result.step}: {arm}"
        tags = {
            TRIAL_TAG: "won" if arm == result.winner else "lost",
            "grad.trial_arm": arm,
            "grad.trial_step": str(result.step),
            PARENT_TAG: str(logger.run_id),
        }
        metrics = [Metric("trial/loss", loss, now(), step) for step, loss in enumerate(losses) if math.isfinite(loss)]
        if math.isfinite(result.scores[arm]):
            metrics.append(Metric("trial/score", result.scores[arm], now(), len(losses)))
        if isinstance(logger, LogsChildRuns):
            logger.log_child(name, tags, [*batch_entries(metrics), status_entry("FINISHED")])
        else:
            client = logger.experiment
            run = client.create_run(str(logger.experiment_id), tags=tags, run_name=name)
            client.log_batch(run.info.run_id, metrics)
            client.set_terminated(run.info.run_id)
