"""Lightning's MLFlowLogger, with a journal between the training and the server."""

from __future__ import annotations

import atexit
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from grad_callbacks._utils.lightning import MLFlowLogger, add_prefix, rank_zero_experiment, rank_zero_only
from grad_callbacks.tracking.ending import Ending, ending_of
from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.journal import DISK_LIMIT, Journal
from grad_callbacks.tracking.journal.sync import sync_journal
from grad_callbacks.tracking.journal.values import flattened, plain
from grad_callbacks.tracking.logger_arguments import check_address, check_arguments
from grad_callbacks.tracking.secrets.masking import mask
from grad_callbacks.tracking.store import default_artifacts, default_journals, default_store
from grad_callbacks.tracking.system import SystemMetrics, started_system_metrics

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from grad_callbacks.tracking.journal.client import JournalingClient
    from grad_callbacks.tracking.run_session import RunSession, RunSettings

_NO_SERVER = "http://127.0.0.1:9"  # an address that MLflow accepts without connecting to it


class JournaledMLFlowLogger(MLFlowLogger):
    """Log to MLflow through a local journal: an unreachable server never stops or blocks training, no data is lost.

    Use it in place of Lightning's ``MLFlowLogger``. Metrics, parameters, tags and artifacts are appended to a journal,
    one file per run, and a thread sends them from there in batches. What could not be sent stays in the journal;
    ``grad-callbacks sync`` sends it later. Nothing is lost when the process is killed, and nothing is logged twice.

    ============  ===============================================================================================
    Server        Down, slow or frozen: training continues. At the start it waits up to ``probe_timeout`` for the
                  run's id. Until the server is reached :attr:`run_id` is the journal's id, which
                  :attr:`experiment` continues to accept
    Status        FINISHED; FAILED by an exception; KILLED by Ctrl-C, SIGTERM, ``sys.exit`` or Optuna's pruning, which
                  the tag ``grad.ended`` tells apart. After a SIGKILL the next logger on the same machine and folder,
                  or ``grad-callbacks sync``, marks the run KILLED
    Parameters    Of more than 6000 characters are cut, and logged in full under ``params/``. One that changes, as
                  when a run is resumed, is logged as ``<name>.changed``
    Context       ``context/environment.yaml``, the git commit, in a Hydra job ``context/config.yaml``, and system
                  metrics if ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is set
    Names         What MLflow refuses is changed, and stays unique: ``loss@a`` becomes ``loss_a-debca075``, told once
    Secrets       Masked by name and within addresses, before anything is written
    Memory        64 MB at most, and only if the disk is full; beyond it the newest entries are dropped with a
                  warning
    Disk          ``disk_limit`` per run; what the server has is removed while the run goes on
    ============  ===============================================================================================

    For HTTP the variables ``MLFLOW_HTTP_REQUEST_TIMEOUT`` and ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` are set to 5 seconds
    and 0, unless they are set already.

    Args:
        experiment_name: See Lightning's ``MLFlowLogger``, as for all arguments up to ``synchronous``.
        run_name: Name of the run.
        tracking_uri: By default ``$MLFLOW_TRACKING_URI``, or else an SQLite file in ``save_dir``.
        tags: Tags of the run.
        save_dir: Where store, artifacts and journals are by default; the working folder if None.
        log_model: Whether checkpoints are logged; they are copied into the journal first.
        prefix: Prefix of the metrics' names.
        artifact_location: Where a new experiment keeps its artifacts.
        run_id: Continues this run, given by the server's id or the journal's. Its journal is continued if it is found.
        synchronous: Has no effect.
        journal_dir: Folder of the journals; by default ``$GRAD_CALLBACKS_JOURNAL``, or ``mlflow-journal`` in
            ``save_dir``.
        probe_timeout: Seconds to wait at most for the server at the start.
        finalize_timeout: Seconds to wait at most at the end until everything is sent.
        disk_limit: Bytes of a run's journal and copies of artifacts. Beyond it, copies that were sent are removed and
            entries go to the server from memory.
        keep_journal: Keep the journal when everything is sent, for instance for a second server.

    Raises:
        ValueError: If an argument cannot be used; nothing was opened then.

    Attributes:
        environment: Versions, device, command and git commit, as they were logged; empty before anything was logged.

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
        check_arguments(locals())
        if tracking_uri is None and "MLFLOW_TRACKING_URI" in os.environ:
            check_address("MLFLOW_TRACKING_URI", default_store())
        # Lightning creates a client here, which would open an SQLite file: it gets an address that opens nothing.
        super().__init__(
            experiment_name, run_name, _NO_SERVER, tags, save_dir, log_model, prefix, artifact_location, run_id
        )
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        self._tracking_uri = tracking_uri or default_store(save_dir)
        if not tracking_uri and artifact_location is None:
            self._artifact_location = default_artifacts(save_dir)
        self._journal_dir = Path(journal_dir) if journal_dir else default_journals(save_dir)
        self._probe_timeout = probe_timeout
        self._finalize_timeout = finalize_timeout
        self._disk_limit = disk_limit
        self._keep_journal = keep_journal
        self._session: RunSession | None = None
        self._system: SystemMetrics | None = None
        self._child_journals: list[Path] = []  # that are still to be sent
        self.environment: dict[str, str] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> JournalingClient:
        """An ``MlflowClient`` that writes into the journal.

        Example::

            self.logger.experiment.log_text(self.logger.run_id, "all is well", "notes.txt")
        """
        self._open_on_rank_zero()
        assert self._session is not None
        return self._session.client

    @property
    def run_id(self) -> str | None:
        """The server's id of the run; the journal's until the server has been reached; None on other ranks."""
        if self._session is None and self._run_id is None:
            self._open_on_rank_zero()
        if self._session is not None:
            self._run_id = self._session.run_id
        run_id: str | None = self._run_id
        return run_id

    @property
    def experiment_id(self) -> str | None:
        """The server's id of the experiment; its name until the server has been reached."""
        if self._session is None and self._experiment_id is None:
            self._open_on_rank_zero()
        if self._session is not None:
            self._experiment_id = self._session.experiment_id
        return self._experiment_id or self._experiment_name

    @property
    def journal_path(self) -> Path | None:
        """The run's journal; None before anything was logged."""
        return None if self._session is None else self._session.journal_path

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log parameters, which may be nested."""
        named = plain(params)
        if not isinstance(named, dict):
            named = {"params": named}
        self.experiment.log_params(str(self.run_id), flattened(mask(named)))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step."""
        self.experiment.log_metrics(str(self.run_id), add_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR), step)

    @rank_zero_only
    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        """Resume the system metrics in a further fit: Lightning calls this at its start. No graph is logged."""
        trainer = getattr(model, "_trainer", None)
        if self._system is not None and trainer is not None and trainer.training:
            self._open_on_rank_zero()
            self._system.start()

    @rank_zero_only
    def log_child(self, name: str, tags: Mapping[str, str], entries: Sequence[Entry]) -> None:
        """Log a run that is already over into a journal of its own, which is sent when this run ends, or by ``sync``.

        Args:
            name: Name of the run.
            tags: Tags of the run; ``mlflow.parentRunId`` may give this run by either of its ids.
            entries: Everything in the run.
        """
        from grad_callbacks.tracking.run_session import write_child_journal

        self._open_on_rank_zero()
        self._child_journals.append(write_child_journal(self._settings(), name, tags, entries))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Log how the run ended, and give the server ``finalize_timeout`` seconds to take what is left."""
        if self._session is None:
            return
        if self._system is not None:
            self._system.stop()
        if self._checkpoint_callback:
            self._scan_and_log_checkpoints(self._checkpoint_callback)
        if self._session.finish(_ending(status)):
            self._send_child_journals()

    def flush(self, timeout: float) -> bool:
        """Wait ``timeout`` seconds at most until the server has everything; True if it has."""
        return self._session is None or self._session.flush(timeout)

    def close(self) -> None:
        """End the thread and release the journal; so does the end of the process. Logging opens it again."""
        if self._session is None:
            return
        atexit.unregister(self._at_exit)
        if self._system is not None:
            self._system.stop()
        session, self._session = self._session, None
        # What is logged from here on continues the run.
        self._run_id, self._experiment_id = session.run_id, session.experiment_id
        session.close()

    def __getstate__(self) -> dict[str, Any]:
        """A copy, for instance in another process, opens a journal of its own for the same run."""
        return self.__dict__ | {"_session": None, "_system": None, "_child_journals": []}

    def _send_child_journals(self) -> None:
        """Send the child runs; what the server does not take stays in its journal."""
        paths, self._child_journals = self._child_journals, []
        for path in paths:
            synced = sync_journal(Journal(path), self._tracking_uri, prune=not self._keep_journal)
            if synced is not None and synced.state == "pending":
                return  # the server is down or refuses: waiting for it once more would not help

    @rank_zero_only
    def _open_on_rank_zero(self) -> None:
        if self._session is None:
            self._open()

    def _open(self) -> None:
        import mlflow

        from grad_callbacks.tracking.run_session import RunSession

        mlflow.set_tracking_uri(self._tracking_uri)  # as Lightning does, for a user's own calls
        self._session = session = RunSession(self._settings(), self._run_id)
        session.start()
        self._initialized = True
        atexit.register(self._at_exit)
        if not self.environment:
            self.environment = session.record_context()
            self._system = self._system or started_system_metrics(self)

    def _settings(self) -> RunSettings:
        from grad_callbacks.tracking.run_session import RunSettings

        return RunSettings(
            tracking_uri=self._tracking_uri,
            experiment=self._experiment_name,
            artifact_location=self._artifact_location,
            name=self._run_name,
            tags=self.tags or {},
            journal_dir=self._journal_dir,
            probe_timeout=self._probe_timeout,
            finalize_timeout=self._finalize_timeout,
            disk_limit=self._disk_limit,
            keep_journal=self._keep_journal,
        )

    def _at_exit(self) -> None:
        if self._session is not None:
            self._session.finish_at_exit()
        self.close()


def _ending(status: str) -> Ending:
    """How a run ended by Lightning's word, which is ``failed`` too after Ctrl-C, SIGTERM and Optuna's pruning."""
    if status in ("success", "finished"):
        return ending_of(None)
    if status == "failed" and (error := sys.exc_info()[1]) is not None:
        return ending_of(error)
    return Ending("KILLED", "killed") if status == "killed" else Ending("FAILED", "failed")
