"""The doctor on a composed config: ``python -m experiments.doctor experiment=corpus/sigmoid_8``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from experiments.parts import make, make_parts
from experiments.run import check, one_line_errors
from experiments.settings import CONF, check_names
from grad_callbacks.doctor import Setup
from grad_callbacks.doctor.command import add_options, run_doctor

LENGTH = ("max_epochs", "max_steps", "_target_", "enable_model_summary", "enable_progress_bar")  # the doctor's own


@dataclass(frozen=True)
class HydraSource:
    """A training as ``experiments.run`` would make it, without guard and logger.

    Args:
        overrides: Of the config.
        with_fault: Inject the fault that the config has.
    """

    overrides: tuple[str, ...]
    with_fault: bool = True

    @property
    def name(self) -> str:
        """The scenario's name."""
        return str(self.config().scenario).replace("/", "-")

    def config(self, seed: int = 0) -> DictConfig:
        """Compose the config."""
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides=[*self.overrides, f"seed={seed}", "guard=none", "logger=none"])
        if not self.with_fault:
            cfg.fault = None
        return cfg

    def describe(self) -> dict[str, Any]:
        """All that decides what is made."""
        cfg = self.config()
        return {"config": OmegaConf.to_container(cfg, resolve=True)}

    def make(self, seed: int) -> Setup:
        """Make data, model, task and fault.

        Raises:
            ConfigError: If a value of the config is wrong.
        """
        cfg = self.config(seed)
        check_names(cfg)
        check(cfg)
        seed_everything(seed, workers=True, verbose=False)
        parts = make_parts(cfg)
        fault = make(cfg, "fault")
        settings = instantiate(cfg.trainer, _target_="builtins.dict", _convert_="all")
        kept = {name: value for name, value in settings.items() if name not in LENGTH}
        return Setup(parts.task, parts.data, [fault] if fault is not None else [], {"limit_val_batches": 1.0, **kept})

    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        cfg = self.config()
        if cfg.trainer.get("max_steps", -1) > 0:
            return int(cfg.trainer.max_steps)
        data = make_parts(cfg).data
        data.setup("fit")
        return int(cfg.trainer.max_epochs * len(data.train_dataloader()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the doctor; what is no option of its own is an override of the config."""
    parser = argparse.ArgumentParser(
        prog="experiments.doctor", description=__doc__, epilog="All else: Hydra overrides."
    )
    add_options(parser)
    options, overrides = parser.parse_known_args(arguments)
    wrong = [one for one in overrides if one.startswith("-")]
    if wrong:
        parser.error(f"unknown option {wrong[0]}")
    with one_line_errors("experiments.doctor"):
        source = HydraSource(tuple(overrides))
        options.steps = options.steps or source.steps()
        options.folder = options.folder or Path("outputs") / f"doctor-{source.name}"
        return run_doctor(source, options)


if __name__ == "__main__":
    sys.exit(main())
