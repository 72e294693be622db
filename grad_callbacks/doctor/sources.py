"""Models and data by import path, or from a configuration of LightningCLI."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grad_callbacks._utils.lightning import PACKAGE, seed_everything
from grad_callbacks._utils.suggest import did_you_mean
from grad_callbacks.doctor.setup import Setup

# Of a configuration's trainer section: how a step is computed. What logs, saves, stops or shows is left out.
TAKEN = (
    "accelerator",
    "accumulate_grad_batches",
    "benchmark",
    "detect_anomaly",
    "deterministic",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "limit_val_batches",
    "precision",
)


@dataclass(frozen=True)
class ImportedSource:
    """A module and its data by import path.

    Args:
        model: Import path of a LightningModule's class, or of a function that returns one: ``my_package.MyModule``.
        data: The same of a DataModule, or of a function that returns a loader or a pair of loaders. None where the
            module has loaders of its own.
        arguments: Of the module.
        data_arguments: Of the data.
    """

    model: str
    data: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    data_arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the model's path."""
        return self.model.replace(":", ".").rpartition(".")[2]

    def describe(self) -> dict[str, Any]:
        """All that decides what is made."""
        given = {"arguments": dict(self.arguments), "data_arguments": dict(self.data_arguments)}
        return {"model": self.model, "data": self.data, **given}

    def make(self, seed: int) -> Setup:
        """Make module and data.

        Raises:
            ValueError: If a path cannot be imported or called, or gives something else.
        """
        seed_everything(seed, workers=True, verbose=False)
        module = _call(self.model, self.arguments, "model", "--arg")
        _check_module(module, self.model)
        data = None if self.data is None else _call(self.data, self.data_arguments, "data", "--data-arg")
        return Setup(module, data)


@dataclass(frozen=True)
class LightningCLISource:
    """A training as LightningCLI configures it.

    Args:
        config: The YAML file.
        model: Import path of the module's class; None if the file has its ``class_path``.
        data: The same of the DataModule.
    """

    config: str
    model: str | None = None
    data: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.config).stem

    def describe(self) -> dict[str, Any]:
        """All that decides what is made: the file's text, too."""
        return {"config": Path(self.config).read_text(), "model": self.model, "data": self.data}

    def make(self, seed: int) -> Setup:
        """Make what the file says; its loggers, callbacks and lengths are left out.

        Raises:
            ValueError: If LightningCLI refuses the file.
        """
        if find_spec("jsonargparse") is None:
            raise ValueError("--config needs a package that is not installed: pip install 'jsonargparse[signatures]'")
        import yaml

        LightningCLI = import_module(f"{PACKAGE}.cli").LightningCLI
        told = yaml.safe_load(Path(self.config).read_text()) or {}
        told = dict(told.get("fit") or told)
        trainer = {name: value for name, value in (told.pop("trainer", None) or {}).items() if name in TAKEN}
        kept = {name: told[name] for name in told if name not in ("ckpt_path", "weights_only", "seed_everything")}
        model = None if self.model is None else _find(self.model, "model")
        data = None if self.data is None else _find(self.data, "data")
        _see_working_folder()
        quiet = {"logger": False, "enable_checkpointing": False, "callbacks": None}
        sys_argv, sys.argv = sys.argv, sys.argv[:1]  # which LightningCLI would read, too
        try:
            cli = LightningCLI(
                model,
                data,
                args={"trainer": quiet, **kept},
                run=False,
                seed_everything_default=seed,
                save_config_callback=None,
                subclass_mode_model=model is None,
                subclass_mode_data=data is None,
                parser_kwargs={"exit_on_error": False},
            )
        except Exception as error:  # of jsonargparse, or of the user's classes
            raise ValueError(f"{self.config}: {' '.join(str(error).split())}") from error
        finally:
            sys.argv = sys_argv
        return Setup(cli.model, cli.datamodule, trainer={k: v for k, v in trainer.items() if v is not None})


def _call(path: str, arguments: Mapping[str, Any], what: str, option: str) -> Any:
    made = _find(path, what)
    if not callable(made):
        raise ValueError(f"{what} {path!r} is a {type(made).__name__}; give a class, or a function that returns one")
    try:
        return made(**arguments)
    except TypeError as error:
        raise ValueError(f"{what} {path}: {error} (arguments are given by {option} NAME=VALUE)") from error
    except Exception as error:  # the user's code
        raise ValueError(f"{what} {path}: {type(error).__name__}: {error}") from error


def _find(path: str, what: str) -> Any:
    """Import what a path names, from the working folder too, as ``python -m`` would."""
    _see_working_folder()
    home, _, attribute = path.replace(":", ".").rpartition(".")
    if not home:
        raise ValueError(f"{what} {path!r} is no import path: my_package.{path} is one, and so is my_file.{path}")
    try:
        module = import_module(home)
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"cannot import the {what} {path!r}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"{what}: {home} has no {attribute!r}{did_you_mean(attribute, vars(module))}")
    return getattr(module, attribute)


def _see_working_folder() -> None:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())


def _check_module(module: object, path: str) -> None:
    if not any(kind.__name__ == "LightningModule" for kind in type(module).__mro__):
        raise ValueError(f"model {path} gives a {type(module).__name__}, which is no LightningModule")
