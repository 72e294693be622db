"""System metrics: processors, memory, disk, network and GPUs, as MLflow measures them."""

from __future__ import annotations

import logging
import threading
from importlib.util import find_spec
from typing import Any

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL

log = logging.getLogger("grad_callbacks")

INTERVAL = 10.0  # seconds between samples, MLflow's own default
PATIENCE = 5.0  # seconds to wait for the last sample


def wants_system_metrics() -> bool:
    """True if ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is set; told if psutil is missing, without which there are none.

    MLflow heeds its switch for active runs only, and a logger's run is none.
    """
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return False
    if find_spec("psutil") is None:
        log.warning("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is set, but psutil is not installed: no system metrics")
        return False
    return True


class SystemMetrics:
    """Logs ``system/…`` metrics through a logger, from a thread, between :meth:`start` and :meth:`stop`.

    Args:
        logger: Takes the metrics: what happens to a server that is down is the logger's business.
    """

    def __init__(self, logger: Any) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._logger = logger
        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor(), *_gpu()]
        self._step = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take samples, unless they are being taken; the steps go on from where they were."""
        if self._thread is not None:
            return
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stopped,), name="grad-callbacks-system", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample, and wait for it, but not for long."""
        if self._thread is None:
            return
        self._stopped.set()
        self._thread.join(PATIENCE)
        self._thread = None

    def _run(self, stopped: threading.Event) -> None:
        interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL
        goes_on = True
        while goes_on:
            goes_on = not stopped.wait(interval)
            try:
                self._logger.log_metrics(self._sample(), step=self._step)
            except Exception as error:  # whatever a driver or a server raises
                log.warning("system metrics end here: %s", error)
                return
            self._step += 1

    def _sample(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return {f"system/{name}": float(value) for name, value in values.items()}


def _gpu() -> list[Any]:
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    try:
        return [GPUMonitor()]
    except Exception:  # no driver, no GPU, or no package that reads it
        return []
