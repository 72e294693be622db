"""One training run from a composed config: ``python -m experiments.run experiment=high_lr guard=full``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import hydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger, MLFlowLogger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.classifier import Classifier
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import (
    StoreError,
    default_artifacts,
    default_store,
    prepare_store,
    true_status,
)


def run_name(scenario: str, variant: str, guard: str, seed: int) -> str:
    """Name a run, the telling parts first: MLflow's list of runs shows some 18 characters."""
    return "/".join([scenario, *([] if variant == "plain" else [variant]), guard, f"seed{seed}"])


OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("mlflow_store", default_store, replace=True)
OmegaConf.register_new_resolver("mlflow_artifacts", default_artifacts, replace=True)


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        accuracy: Final validation accuracy.
        monitor: The callback that watched it, if any.
        run_id: The MLflow run, if any.
    """

    accuracy: float
    monitor: GradientMonitor | None
    run_id: str | None


def run(cfg: DictConfig) -> Result:
    """Train as ``cfg`` says, and log the run.

    Raises:
        ValueError: If a value of the config is wrong.
        StoreError: If the MLflow store cannot be used.
    """
    seed_everything(cfg.seed, workers=True, verbose=False)
    data = instantiate(cfg.data)
    classifier = Classifier(instantiate(cfg.model), instantiate(cfg.optimizer))
    monitor: GradientMonitor | None = instantiate(cfg.guard.callback)
    # The settings of the Trainer are checked here, so that a wrong one leaves no half-written run behind.
    trainer: Trainer = instantiate(cfg.trainer, logger=False, callbacks=[monitor] if monitor else [])
    logger = _logger(cfg)
    trainer.loggers = [logger] if logger else []
    with _logged(logger, cfg):
        trainer.fit(classifier, datamodule=data)
    accuracy = float(trainer.callback_metrics.get("val/accuracy", float("nan")))
    return Result(accuracy, monitor, logger.run_id if isinstance(logger, MLFlowLogger) else None)


def _logger(cfg: DictConfig) -> Logger | None:
    if "tracking_uri" in cfg.logger:
        prepare_store(cfg.logger.tracking_uri)
    return instantiate(cfg.logger) if "_target_" in cfg.logger else None


@contextmanager
def _logged(logger: Logger | None, cfg: DictConfig) -> Iterator[None]:
    """Log the resolved config, and keep the status of an MLflow run true."""
    with ExitStack() as stack:
        if logger is not None:
            resolved = OmegaConf.to_container(cfg, resolve=True)
            if isinstance(logger, MLFlowLogger):
                stack.enter_context(true_status(logger.experiment, str(logger.run_id)))
                logger.experiment.log_text(logger.run_id, OmegaConf.to_yaml(cfg, resolve=True), "config.yaml")
            logger.log_hyperparams(dict(_flat(resolved)))
        yield


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Train once and return the final accuracy, which a Hydra sweeper can maximise."""
    return run(cfg).accuracy


def command_line() -> int:
    """Run :func:`main`; a wrong option or value gets one line instead of a traceback."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hands the exception through to us
    try:
        main()
    except (HydraException, OmegaConfBaseException, StoreError, ValueError) as error:
        sys.stderr.write(f"experiments.run: {_one_line(error)}\n")
        return 2
    return 0


def _one_line(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None and not isinstance(root, StoreError):
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return " ".join(lines) or type(root).__name__


if __name__ == "__main__":
    sys.exit(command_line())
