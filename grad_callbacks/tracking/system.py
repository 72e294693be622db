"""System metrics: processors, memory, disk, network and GPUs, as MLflow measures them."""

from __future__ import annotations

import logging
import threading
from importlib.util import find_spec
from typing import Any

log = logging.getLogger("grad_callbacks")

DEFAULT_INTERVAL = 10.0  # seconds between samples, MLflow's own default
STOP_TIMEOUT = 5.0  # seconds to wait at most for the last sample


def wants_system_metrics() -> bool:
    """True if ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is set and psutil is installed; warns if only psutil is missing.

    MLflow itself uses the variable only for its active run, and a logger's run is not the active one.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return False
    if find_spec("psutil") is None:
        log.warning("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is set, but psutil is not installed: no system metrics")
        return False
    return True


def started_system_metrics(logger: Any) -> SystemMetrics | None:
    """Start and return a logger's system metrics, if they are wanted and can be measured."""
    if not wants_system_metrics():
        return None
    try:
        system = SystemMetrics(logger)
    except Exception as error:  # of a driver
        log.warning("there are no system metrics: %s", error)
        return None
    system.start()
    return system


class SystemMetrics:
    """Logs ``system/…`` metrics through a logger, from a thread, between :meth:`start` and :meth:`stop`.

    Args:
        logger: Takes the metrics; it also handles a server that is down.
    """

    def __init__(self, logger: Any) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._logger = logger
        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor(), *_gpu_monitors()]
        self._step = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take samples, unless they are being taken; the steps continue from the last ones."""
        if self._thread is not None:
            return
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stopped,), name="grad-callbacks-system", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample, and wait a few seconds for it."""
        if self._thread is None:
            return
        self._stopped.set()
        self._thread.join(STOP_TIMEOUT)
        self._thread = None

    def _run(self, stopped: threading.Event) -> None:
        from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL

        interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or DEFAULT_INTERVAL
        is_running = True
        while is_running:
            is_running = not stopped.wait(interval)
            try:
                self._logger.log_metrics(self._sample(), step=self._step)
            except Exception as error:  # of a driver or a server
                log.warning("no more system metrics: %s", error)
                return
            self._step += 1

    def _sample(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return {f"system/{name}": float(value) for name, value in values.items()}


def _gpu_monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    try:
        return [GPUMonitor()]
    except Exception:  # no driver, no GPU, or no package that reads it
        return []
