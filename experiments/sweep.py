"""A Hydra multirun in MLflow: one parent run with the comparison, and a child for each job, named by what differs."""

from __future__ import annotations

import atexit
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from grad_callbacks.tracking import JournaledMLFlowLogger, prepare_store, record_sweep
from grad_callbacks.tracking.comparison.compare import SWEPT
from grad_callbacks.tracking.ending import ending_of
from grad_callbacks.tracking.journal.journal import Journal, journals
from grad_callbacks.tracking.journal.sync import sync_journal
from grad_callbacks.tracking.secrets.masking import mask, mask_address

log = logging.getLogger(__name__)

NOTE = "mlflow-parent.json"  # in the sweep's folder, where every job finds it whatever launched it
FAILED = "mlflow-parent.failed"  # is there too if a job has failed, perhaps in a process of its own
PARENT = "mlflow.parentRunId"
PATIENCE = 10.0  # seconds for the server to take what is still to be sent, before the runs are compared
_COMPARED_ANYWAY = {"seed", "guard", "experiment", "scenario", "variant"}


class ParentRun(Callback):
    """Makes the parent run before the first job, which also makes the store's tables once, and ends it after the last.

    At the end the jobs' runs are compared, however they ended, and the comparison is logged into the parent run. A
    multirun that is started again in the same folder (``hydra.sweep.dir``) continues its parent.
    """

    def __init__(self) -> None:
        self._logger: JournaledMLFlowLogger | None = None
        self._uri = ""
        self._run_id = ""  # of the parent, as its jobs know it
        self._failed = Path()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the parent run, unless the jobs log elsewhere."""
        if "tracking_uri" not in config.logger:
            return
        if config.logger.tracking_uri.startswith("sqlite:"):
            prepare_store(config.logger.tracking_uri)
        swept, fixed = _overrides(config)
        folder = Path(config.hydra.sweep.dir)
        note, self._failed, self._uri = folder / NOTE, folder / FAILED, config.logger.tracking_uri
        known = json.loads(note.read_text())["run_id"] if note.exists() else None
        logger = instantiate(config.logger, run_name=" ".join(swept)[:250] or note.parent.name, run_id=known)
        if not isinstance(logger, JournaledMLFlowLogger):
            return
        self._logger, self._run_id = logger, str(logger.run_id)
        logger.experiment.set_tag(self._run_id, "sweep.overrides", " ".join([*swept, *fixed]))
        names = [_name(override) for override in swept]
        told = " ".join(_tag(name) for name in names if name not in _COMPARED_ANYWAY)
        logger.experiment.set_tag(self._run_id, SWEPT, told)
        atexit.register(self._end_unless_ended)  # runs before the logger's own, which is registered earlier
        folder.mkdir(parents=True, exist_ok=True)
        self._failed.unlink(missing_ok=True)
        note.write_text(json.dumps({"run_id": self._run_id, "fixed": [_name(override) for override in fixed]}))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Remember that a job has failed; this may be the job's own process."""
        if job_return.status != JobStatus.FAILED or ending_of(job_return._return_value).status != "FAILED":
            return  # a trial that Optuna has pruned is no failure
        if (Path(config.hydra.sweep.dir) / NOTE).exists():
            (Path(config.hydra.sweep.dir) / FAILED).touch()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Compare the jobs' runs and end the parent run."""
        self._end("failed" if self._failed.exists() else "success")

    def _end_unless_ended(self) -> None:
        if self._logger is None:
            return
        # Without an exception it was Ctrl-C or SIGTERM, which Lightning turns into an exit.
        error = getattr(sys, "last_value", None)
        was_stopped = isinstance(error, KeyboardInterrupt) or (error is None and not self._failed.exists())
        self._end("killed" if was_stopped else "failed")

    def _end(self, status: str) -> None:
        logger, self._logger = self._logger, None
        if logger is not None:
            self._compare(logger)
            logger.finalize(status)
            logger.close()

    def _compare(self, logger: JournaledMLFlowLogger) -> None:
        try:
            if not logger.flush(PATIENCE) or logger.journal_path is None:
                raise TimeoutError("the server does not take what is logged")
            for journal in journals(logger.journal_path.parent):
                if self._is_job(journal):  # what one that was killed has left behind, its true status above all
                    sync_journal(journal, self._uri)
            record_sweep(logger.experiment, str(logger._experiment_name), str(logger.run_id))
        except Exception as error:  # whatever a server raises: the runs are there all the same
            log.warning(
                "the sweep is not compared now (%s); later: grad-callbacks compare %s --sweep %s",
                mask(str(error)),
                logger._experiment_name,
                logger.run_id,
            )

    def _is_job(self, journal: Journal) -> bool:
        """True if it is the journal of a job of this sweep, on the sweep's server."""
        header = journal.header
        return header.get("uri") == mask_address(self._uri) and header.get("tags", {}).get(PARENT) == self._run_id


def as_child() -> dict[str, Any]:
    """The logger's arguments for a job of a multirun, its name and its tags; empty for a run of its own."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return {}
    config = HydraConfig.get()
    note = Path(config.sweep.dir) / NOTE
    told = json.loads(note.read_text()) if note.exists() else {"fixed": []}
    mine = [override for override in config.overrides.task if _name(override) not in told["fixed"]]
    named = {"run_name": ", ".join(mine)[:250]} if mine else {}
    if "run_id" not in told:
        return named
    return named | {"tags": {PARENT: told["run_id"]} | {_tag(_name(one)): one.partition("=")[2] for one in mine}}


def _overrides(config: DictConfig) -> tuple[list[str], list[str]]:
    """Which overrides the jobs differ in, and which they share."""
    swept, fixed = [], []
    for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
        (swept if override.is_sweep_override() else fixed).append(str(override.input_line))
    params = config.hydra.sweeper.get("params") or {}
    return swept + [f"{name}={values}" for name, values in params.items()], fixed


def _name(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _tag(name: str) -> str:
    """The tag of a job's run that holds what was swept."""
    return "sweep." + re.sub(r"[^\w.]+", ".", name)
