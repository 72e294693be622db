"""Child runs: one for each arm of a trial, below the run in which it was held."""

from __future__ import annotations

import math

from lightning.pytorch.loggers import MLFlowLogger
from mlflow.entities import Metric

from grad_callbacks.events import TrialResult
from grad_callbacks.tracking.journal.entries import batch_entries, status_entry
from grad_callbacks.tracking.journal.journal import now
from grad_callbacks.tracking.journal.sender import PARENT_TAG
from grad_callbacks.tracking.logger import JournaledMLFlowLogger

TRIAL_TAG = "grad.trial"


def record_trial(logger: MLFlowLogger, result: TrialResult) -> None:
    """Make a child run for each arm.

    =====================  ================================================
    name                   ``trial 41: Rollback``
    metric ``trial/loss``  training loss at each step of the arm
    ``trial/score``        loss on the held-out batches, if it is finite
    tag ``grad.trial``     ``won`` or ``lost``
    ``grad.trial_arm``     the remedy, or ``none``
    ``grad.trial_step``    the step of the run at which it was held
    =====================  ================================================
    """
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
        if isinstance(logger, JournaledMLFlowLogger):
            logger.log_child(name, tags, [*batch_entries(metrics), status_entry("FINISHED")])
        else:
            client = logger.experiment
            run = client.create_run(str(logger.experiment_id), tags=tags, run_name=name)
            client.log_batch(run.info.run_id, metrics)
            client.set_terminated(run.info.run_id)
