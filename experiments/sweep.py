"""A Hydra multirun in MLflow: one parent run, with a child for each job, named by what the jobs differ in."""

from __future__ import annotations

import atexit
import json
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

from grad_callbacks.tracking import JournaledMLFlowLogger, prepare_store

NOTE = "mlflow-parent.json"  # in the sweep's folder, where every job finds it whatever launched it
PARENT = "mlflow.parentRunId"


class ParentRun(Callback):
    """Makes the parent run before the first job, which also makes the store's tables once, and ends it after the last.

    A multirun that is started again in the same folder (``hydra.sweep.dir``) continues its parent.
    """

    def __init__(self) -> None:
        self._logger: JournaledMLFlowLogger | None = None
        self._has_failed = False

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the parent run, unless the jobs log elsewhere."""
        if "tracking_uri" not in config.logger:
            return
        if config.logger.tracking_uri.startswith("sqlite:"):
            prepare_store(config.logger.tracking_uri)
        swept, fixed = _overrides(config)
        note = Path(config.hydra.sweep.dir) / NOTE
        known = json.loads(note.read_text())["run_id"] if note.exists() else None
        logger = instantiate(config.logger, run_name=" ".join(swept)[:250] or note.parent.name, run_id=known)
        if not isinstance(logger, JournaledMLFlowLogger):
            return
        self._logger = logger
        logger.experiment.set_tag(str(logger.run_id), "sweep.overrides", " ".join([*swept, *fixed]))
        atexit.register(self._end_unless_ended)  # runs before the logger's own, which is registered earlier
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"run_id": logger.run_id, "fixed": [_name(override) for override in fixed]}))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Remember that a job has failed."""
        self._has_failed |= job_return.status == JobStatus.FAILED

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """End the parent run."""
        self._end("failed" if self._has_failed else "success")

    def _end_unless_ended(self) -> None:
        # Without an exception it was Ctrl-C or SIGTERM, which Lightning turns into an exit.
        error = getattr(sys, "last_value", None)
        was_stopped = isinstance(error, KeyboardInterrupt) or (error is None and not self._has_failed)
        self._end("killed" if was_stopped else "failed")

    def _end(self, status: str) -> None:
        if self._logger is not None:
            self._logger.finalize(status)
            self._logger.close()
            self._logger = None


def as_child() -> dict[str, Any]:
    """The logger's arguments for a job of a multirun, its name and its tags; empty for a run of its own."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return {}
    config = HydraConfig.get()
    note = Path(config.sweep.dir) / NOTE
    told = json.loads(note.read_text()) if note.exists() else {"fixed": []}
    name = ", ".join(override for override in config.overrides.task if _name(override) not in told["fixed"])
    named = {"run_name": name[:250]} if name else {}
    return named | ({"tags": {PARENT: told["run_id"]}} if "run_id" in told else {})


def _overrides(config: DictConfig) -> tuple[list[str], list[str]]:
    """Which overrides the jobs differ in, and which they share."""
    swept, fixed = [], []
    for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
        (swept if override.is_sweep_override() else fixed).append(str(override.input_line))
    params = config.hydra.sweeper.get("params") or {}
    return swept + [f"{name}={values}" for name, values in params.items()], fixed


def _name(override: str) -> str:
    return override.partition("=")[0]
