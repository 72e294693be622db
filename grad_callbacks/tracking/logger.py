"""Lightning's MLFlowLogger, with a journal before the server."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import _add_prefix, _convert_params, _flatten_dict
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn import Module

from grad_callbacks.tracking.context import hydra_config, record_config, record_environment
from grad_callbacks.tracking.journal.client import JournalingClient
from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.journal import DISK_LIMIT, ENDED, SUFFIX, Entry, Journal, journals, now
from grad_callbacks.tracking.journal.sender import Sender
from grad_callbacks.tracking.journal.sync import sweep, sync_journal
from grad_callbacks.tracking.journal.writer import Writer
from grad_callbacks.tracking.secrets.masking import mask, mask_address
from grad_callbacks.tracking.store import default_artifacts, default_journals, default_store
from grad_callbacks.tracking.system import SystemMetrics, wants_system_metrics

log = logging.getLogger("grad_callbacks")

LOCAL_PATIENCE = (
    60.0  # seconds to wait for an SQLite file, whose tables take long to make, and longer on a busy machine
)
_NO_SERVER = "http://127.0.0.1:9"  # an address that MLflow takes without asking anybody


class JournaledMLFlowLogger(MLFlowLogger):
    """Log to MLflow by way of a local journal: no server ends a training, and none makes it wait or lose anything.

    Takes the place of Lightning's ``MLFlowLogger``. Metrics, parameters, tags and artifacts are appended to a journal,
    a file per run, and sent from there by a thread, in batches. What could not be sent stays in the journal;
    ``grad-callbacks sync`` sends it later. Nothing is lost when the process is killed, and nothing logged twice.

    ============  ===============================================================================================
    Server        Down, slow or frozen: the training goes on. At the start it waits up to ``probe_timeout`` for the
                  run's id. Until the server is reached :attr:`run_id` is the journal's, which
                  :attr:`experiment` goes on to understand
    Status        FINISHED; FAILED by an exception; KILLED by Ctrl-C, SIGTERM or ``sys.exit``. After a SIGKILL the
                  next logger on the same machine and folder, or ``grad-callbacks sync``, marks the run KILLED
    Parameters    Of more than 6000 characters are cut, and whole under ``params/``. One that changes, as when a
                  run is resumed, is logged as ``<name>.changed``
    Context       ``context/environment.yaml``, the git commit, in a Hydra job ``context/config.yaml``, and system
                  metrics if ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is set
    Names         What MLflow refuses in a name is left out, as Lightning does
    Secrets       Masked by name and within addresses, before anything is written
    Memory        64 MB at most, and only where the disk refuses; beyond it the newest is dropped with a warning
    Disk          ``disk_limit`` for a run; removed once the run has ended and the server has all of it
    ============  ===============================================================================================

    With HTTP the time-outs ``MLFLOW_HTTP_REQUEST_TIMEOUT`` and ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` are set to 5 seconds
    and 0, unless they are set already.

    Args:
        experiment_name: See Lightning's ``MLFlowLogger``, as for all up to ``synchronous``.
        run_name: Of the run.
        tracking_uri: By default ``$MLFLOW_TRACKING_URI``, or else an SQLite file in ``save_dir``.
        tags: Of the run.
        save_dir: Where store, artifacts and journals are by default; the working folder if None.
        log_model: Whether checkpoints are logged; they are copied into the journal first.
        prefix: Of the metrics' names.
        artifact_location: Of a new experiment.
        run_id: Continues this run: the server's id, or the journal's. Its journal is continued if it is there.
        synchronous: Has no effect.
        journal_dir: Where journals are; by default ``$GRAD_CALLBACKS_JOURNAL``, or ``mlflow-journal`` in ``save_dir``.
        probe_timeout: Seconds to wait at most for the server at the start.
        finalize_timeout: Seconds to wait at most at the end, for what is still to be sent.
        disk_limit: Bytes of a run's journal and copies of artifacts. Beyond it, copies that were sent are removed and
            entries go to the server from memory.
        keep_journal: Keep the journal when all is sent, for instance for a second server.

    Attributes:
        environment: Versions, device, command and git commit, as they were written; empty before anything was logged.

    Example::

        from lightning.pytorch import Trainer
        from grad_callbacks.tracking import JournaledMLFlowLogger

        trainer = Trainer(logger=JournaledMLFlowLogger("digits", tracking_uri="http://127.0.0.1:5000"))
    """

    def __init__(
        self,
        experiment_name: str = "lightning_logs",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str | None = None,
        log_model: Literal[True, False, "all"] = False,
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
        synchronous: bool | None = None,
        *,
        journal_dir: str | os.PathLike[str] | None = None,
        probe_timeout: float = 5.0,
        finalize_timeout: float = 8.0,
        disk_limit: int = DISK_LIMIT,
        keep_journal: bool = False,
    ) -> None:
        # Lightning makes a client here, which opens an SQLite file. It gets an address that opens nothing.
        super().__init__(
            experiment_name, run_name, _NO_SERVER, tags, save_dir, log_model, prefix, artifact_location, run_id
        )
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        self._tracking_uri = tracking_uri or default_store(save_dir)
        if not tracking_uri and artifact_location is None:
            self._artifact_location = default_artifacts(save_dir)
        self._client: JournalingClient | None = None
        self._journal_dir = Path(journal_dir) if journal_dir else default_journals(save_dir)
        self._probe_timeout = probe_timeout
        self._finalize_timeout = finalize_timeout
        self._disk_limit = disk_limit
        self._keep_journal = keep_journal
        self._writer: Writer | None = None
        self._system: SystemMetrics | None = None
        self._children: list[Path] = []  # journals that are still to be sent
        self._last_error: object = None
        self.environment: dict[str, str] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> JournalingClient:
        """An ``MlflowClient`` that writes into the journal.

        Example::

            self.logger.experiment.log_text(self.logger.run_id, "all is well", "notes.txt")
        """
        self._open_on_rank_zero()
        assert self._client is not None
        return self._client

    @property
    def run_id(self) -> str | None:
        """The server's name of the run; the journal's as long as the server was not reached; None on other ranks."""
        if self._writer is None and self._run_id is None:
            self._open_on_rank_zero()
        if self._writer is not None:
            self._run_id = self._writer.run_id
        run_id: str | None = self._run_id
        return run_id

    @property
    def experiment_id(self) -> str | None:
        """The server's name of the experiment; its own name as long as the server was not reached."""
        if self._writer is None and self._experiment_id is None:
            self._open_on_rank_zero()
        if self._writer is not None:
            self._experiment_id = self._writer.sender.experiment_id
        return self._experiment_id or self._experiment_name

    @property
    def journal_path(self) -> Path | None:
        """The run's journal; None before anything was logged."""
        return None if self._writer is None else self._writer.journal.path

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log parameters, nested at will."""
        self.experiment.log_params(str(self.run_id), _flatten_dict(mask(_convert_params(params))))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step."""
        self.experiment.log_metrics(str(self.run_id), _add_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR), step)

    @rank_zero_only
    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        """Go on with the system metrics in a further fit: Lightning calls this when one begins. No graph is logged."""
        trainer = getattr(model, "_trainer", None)
        if self._system is not None and trainer is not None and trainer.training:
            self._open_on_rank_zero()
            self._system.start()

    @rank_zero_only
    def log_child(self, name: str, tags: Mapping[str, str], entries: Sequence[Entry]) -> None:
        """Log a run that is over already, into a journal of its own: it is sent when this run ends, or by ``sync``.

        Args:
            name: Of the run.
            tags: Of the run; ``mlflow.parentRunId`` may name this one by either of its ids.
            entries: All that it holds.
        """
        self._open_on_rank_zero()
        header = self._header() | {"id": uuid.uuid4().hex, "name": name, "tags": _tags(tags)}
        header.pop("run_id", None)
        child = Journal(self._journal_dir / f"{header['id']}{SUFFIX}", header, self._disk_limit)
        child.take()
        child.open_for_writing()
        for entry in entries:
            child.append(entry)
        child.close()
        self._children.append(child.path)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Note how the run ended, and give the server ``finalize_timeout`` seconds to take what is left."""
        if self._writer is None:
            return
        self._stop_system_metrics()
        if self._checkpoint_callback:
            self._scan_and_log_checkpoints(self._checkpoint_callback)
        self._writer.record(status_entry(_status(status)))
        if self._writer.flush(self._finalize_timeout):
            self._send_children()

    def flush(self, patience: float) -> bool:
        """Give the server so many seconds to take what is left; True if it has everything."""
        return self._writer is None or self._writer.flush(patience)

    def close(self) -> None:
        """End the thread and leave the journal, which the end of the process does as well; logging opens it again."""
        if self._writer is None:
            return
        atexit.unregister(self._at_exit)
        self._stop_system_metrics()
        writer, self._writer = self._writer, None
        # What is logged from here on continues the run.
        self._run_id, self._experiment_id = writer.run_id, writer.sender.experiment_id
        journal = writer.journal
        done = writer.close(self._finalize_timeout)
        if journal.dropped:
            log.warning("%d entries are lost: neither the disk nor the MLflow server took them", journal.dropped)
        if done and not self._keep_journal and journal.is_wholly_sent():
            journal.remove()
        elif not done and journal.path.exists():
            log.warning(
                "not all of run %s is on the MLflow server %s. Send the rest with: grad-callbacks sync %s",
                writer.run_id,
                mask_address(self._tracking_uri),
                self._journal_dir,
            )

    def __getstate__(self) -> dict[str, Any]:
        """A copy, in another process perhaps, opens a journal of its own for the same run."""
        return self.__dict__ | {"_writer": None, "_client": None, "_system": None, "_children": []}

    def _send_children(self) -> None:
        """Send the runs below this one; what the server does not take stays in its journal."""
        children, self._children = self._children, []
        for path in children:
            synced = sync_journal(Journal(path), self._tracking_uri, prune=not self._keep_journal)
            if synced is not None and synced.state == "pending":
                return  # the server has gone, or refuses: no use to wait for it once more

    @rank_zero_only
    def _open_on_rank_zero(self) -> None:
        if self._writer is None:
            self._open()

    def _open(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(self._tracking_uri)  # as Lightning does, for a user's own calls
        journal = self._journal()
        is_fresh = not journal.path.exists() and "run_id" not in journal.header
        journal.open_for_writing()
        self._writer = Writer(journal, self._tracking_uri, is_fresh, partial(_sweep, self._journal_dir, journal))
        self._client = JournalingClient(self._tracking_uri, self._writer)
        self._last_error = _last_error()
        if not is_fresh:
            self._writer.record(status_entry("RUNNING"))
        is_local = self._tracking_uri.startswith("sqlite:")
        self._writer.start(max(self._probe_timeout, LOCAL_PATIENCE) if is_local else self._probe_timeout)
        self._initialized = True
        atexit.register(self._at_exit)
        if not self.environment:
            self._record_context()
            self._begin_system_metrics()

    def _record_context(self) -> None:
        """Write where the run comes from."""
        client, run_id = self._client, str(self.run_id)
        assert client is not None
        try:
            self.environment = record_environment(client, run_id)
            if (config := hydra_config()) is not None:
                record_config(client, run_id, config)
        except Exception as error:  # whatever git, a device or a config raises
            log.warning("the environment could not be written: %s", mask(str(error)))

    def _begin_system_metrics(self) -> None:
        if self._system is not None or not wants_system_metrics():
            return
        try:
            self._system = SystemMetrics(self)
        except Exception as error:  # whatever a driver raises
            log.warning("there are no system metrics: %s", error)
            return
        self._system.start()

    def _stop_system_metrics(self) -> None:
        if self._system is not None:
            self._system.stop()

    def _journal(self) -> Journal:
        """The journal of the run that is continued, if it is here and free; or else a new one."""
        if self._run_id is not None:
            for journal in journals(self._journal_dir):
                names = {journal.id, journal.header.get("run_id")}
                names |= {state.get("run_id") for state in journal.sent.values()}
                if self._run_id in names and journal.take_existing():
                    journal.disk_limit = self._disk_limit
                    return journal
        header = self._header()
        path = self._journal_dir / f"{header['id']}{SUFFIX}"
        if path.exists():  # another process writes to the same run
            path = path.with_stem(f"{path.stem}-{uuid.uuid4().hex[:8]}")
        journal = Journal(path, header, self._disk_limit)
        journal.take()
        return journal

    def _header(self) -> dict[str, Any]:
        header = {
            "id": self._run_id or uuid.uuid4().hex,
            "uri": mask_address(self._tracking_uri),
            "experiment": self._experiment_name,
            "artifact_location": self._artifact_location,
            "name": self._run_name,
            "tags": _tags(self.tags or {}),
            "start": now(),
            "keep": self._keep_journal,
        }
        return header | ({"run_id": self._run_id} if self._run_id else {})

    def _at_exit(self) -> None:
        writer = self._writer
        if writer is not None and writer.status not in ENDED:
            error = _last_error()
            has_failed = error is not None and error is not self._last_error
            killed = isinstance(error, KeyboardInterrupt)
            writer.record(status_entry("KILLED" if killed else "FAILED") if has_failed else status_entry("FINISHED"))
        self.close()


def _sweep(folder: Path, journal: Journal, sender: Sender) -> None:
    try:
        sweep(folder, journal, sender)
    except Exception as error:
        log.warning("the journals in %s could not be looked through: %s", folder, error)


def _status(status: str) -> str:
    """MLflow's word for Lightning's; Lightning says ``failed`` of Ctrl-C and SIGTERM as well."""
    if status == "failed":
        return "KILLED" if isinstance(sys.exc_info()[1], (KeyboardInterrupt, SystemExit)) else "FAILED"
    return {"success": "FINISHED", "finished": "FINISHED"}.get(status, status.upper())


def _last_error() -> object:
    """The last exception that nobody caught, if any."""
    return getattr(sys, "last_value", None)


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """The user's tags and those that MLflow finds around it: the script, the commit, the user."""
    try:
        from mlflow.tracking.context.registry import resolve_tags

        tags = resolve_tags(tags)
    except Exception as error:
        log.warning("MLflow cannot tell where the run comes from: %s", error)
    return {name: str(mask(value, name)) for name, value in tags.items()}
