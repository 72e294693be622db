"""One training run from a composed config: ``python -m experiments.run experiment=high_lr guard=full``."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger, MLFlowLogger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.combinations import check_combination
from experiments.parts import make, make_parts
from experiments.settings import ConfigError, check_names, check_numbers
from experiments.sweep import as_child
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import (
    JournaledMLFlowLogger,
    StoreError,
    default_artifacts,
    default_store,
    prepare_store,
    true_status,
)
from grad_callbacks.tracking.context import record_config
from grad_callbacks.tracking.secrets.masking import mask


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
        accuracy: Final validation accuracy; NaN for a task that has none.
        quality: Final quality on the validation data: 1 is perfect, 0 is chance. NaN if it is not finite.
        monitor: The callback that watched it, if any.
        run_id: The MLflow run, if any.
        place: Where the run was logged, in words; empty if it was not.
        is_judged: The task logs ``val/quality``; one of a user's own may not.
    """

    accuracy: float
    quality: float
    monitor: GradientMonitor | None
    run_id: str | None
    place: str = ""
    is_judged: bool = True

    def __str__(self) -> str:
        """How it went, in one line."""
        parts = [f"quality {self.quality:.3f}" if self.is_judged else "quality unknown: no `val/quality` was logged"]
        if self.monitor is not None:
            parts.append(f"verdict {self.monitor.verdict}, outcome {self.monitor.outcome}")
        return "; ".join([*parts, f"report: {self.place}" if self.place else "not logged"])


def run(cfg: DictConfig, callbacks: Sequence[Callback] = (), checkpoint: Path | None = None) -> Result:
    """Train as ``cfg`` says, and log the run.

    Args:
        cfg: The composed config.
        callbacks: Added to those that the config names.
        checkpoint: Where to go on from.

    Raises:
        ConfigError: If a value of the config is wrong.
        StoreError: If the MLflow store cannot be used.
    """
    check_names(cfg)
    check_combination(cfg)
    check(cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)
    # Everything is made before the logger, so that a wrong setting leaves no half-written run behind.
    parts = make_parts(cfg)
    monitor: GradientMonitor | None = make(cfg, "guard.callback")
    mine = [callback for callback in (make(cfg, "fault"), monitor, *callbacks) if callback is not None]
    trainer: Trainer = make(cfg, "trainer", logger=False, callbacks=mine)
    check_numbers(cfg)  # after each part has checked its own: it knows more
    logger = _logger(cfg)
    trainer.loggers = [logger] if logger else []
    with _logged(logger, cfg):
        trainer.fit(parts.task, **parts.data_arguments, ckpt_path=checkpoint)
    accuracy, quality = (
        float(trainer.callback_metrics.get(f"val/{name}", math.nan)) for name in ("accuracy", "quality")
    )
    run_id = logger.run_id if isinstance(logger, MLFlowLogger) else None
    is_judged = "val/quality" in trainer.callback_metrics
    return Result(accuracy, quality, monitor, run_id, _place(logger, cfg), is_judged)


def _place(logger: Logger | None, cfg: DictConfig) -> str:
    """Where the report is, in words."""
    if isinstance(logger, MLFlowLogger):
        page = "" if OmegaConf.select(cfg, "guard.callback") is None else ", gradients/run.html"
        return f"MLflow run {logger.run_id}{page}, at {mask(str(cfg.logger.tracking_uri))}"
    return str(logger.log_dir) if logger is not None else ""


WHOLE_NUMBERS = {"seed": 0, "trainer.max_epochs": 1, "trainer.log_every_n_steps": 1}  # and the least of each


def check(cfg: DictConfig) -> None:
    """Refuse values that Lightning would only stumble over in mid-run."""
    for name, least in WHOLE_NUMBERS.items():
        if name == "trainer.max_epochs" and cfg.trainer.max_epochs == -1:
            name = "trainer.max_steps"  # which then must end the run
        value = OmegaConf.select(cfg, name)
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _logger(cfg: DictConfig) -> Logger | None:
    if "_target_" not in cfg.logger:
        return None
    if "tracking_uri" not in cfg.logger:
        return make(cfg, "logger")
    if cfg.logger.tracking_uri.startswith("sqlite:"):
        prepare_store(
            cfg.logger.tracking_uri
        )  # a file that cannot be written is a mistake, a server that is down is not
    return make(cfg, "logger", **as_child())


@contextmanager
def _logged(logger: Logger | None, cfg: DictConfig) -> Iterator[None]:
    """Log the resolved config, and keep the status of an MLflow run true."""
    with ExitStack() as stack:
        if logger is not None:
            resolved = mask(OmegaConf.to_container(cfg, resolve=True))
            if isinstance(logger, JournaledMLFlowLogger):
                stack.callback(logger.close)
            if isinstance(logger, MLFlowLogger):
                stack.enter_context(true_status(logger.experiment, str(logger.run_id)))
                record_config(logger.experiment, str(logger.run_id), resolved)
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
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return _told(run(cfg))  # after an error Hydra goes on with the other jobs, and raises it at the end
    with one_line_errors():
        return _told(run(cfg))


def _told(result: Result) -> float:
    sys.stdout.write(f"{result}\n")
    return result.accuracy


@contextmanager
def one_line_errors(program: str = "experiments.run") -> Iterator[None]:
    """Tell a wrong option or value in one line that names it, and exit with status 2, instead of a traceback."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, StoreError, ConfigError) as error:
        told = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        sys.stderr.write(f"{program}: {told.split(' Config search path')[0]}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its exceptions through to us
    with one_line_errors():
        main()
