"""The parts of a training, made from a composed config: ours, or a user's own classes by ``_target_``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object, instantiate
from lightning.pytorch import LightningDataModule, LightningModule
from omegaconf import DictConfig, OmegaConf

from experiments.combinations import finish_init
from experiments.models.unbiased import without_biases
from experiments.settings import ConfigError, check_numbers
from experiments.tasks import Task
from grad_callbacks._utils.suggest import did_you_mean

OURS = ("experiments.",)  # where classes that take all of their group's settings are
OF_A_USER = ("data", "model", "task")  # what a user may replace by a class of their own
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
FEATURES = ("in_features", "out_features")  # what a model is told of the data


@dataclass
class Parts:
    """What is trained.

    Attributes:
        task: The LightningModule.
        data: The DataModule, or what the Trainer takes as loaders; None where the module has its own.
    """

    task: LightningModule
    data: Any

    @property
    def data_arguments(self) -> dict[str, Any]:
        """The data, as ``fit`` takes them."""
        if self.data is None:
            return {}
        if isinstance(self.data, LightningDataModule):
            return {"datamodule": self.data}
        if isinstance(self.data, tuple) and len(self.data) == 2:
            return {"train_dataloaders": self.data[0], "val_dataloaders": self.data[1]}
        return {"train_dataloaders": self.data}


def make_parts(cfg: DictConfig) -> Parts:
    """Make data, model and task; a task that takes no model gets none, and none is made.

    Raises:
        ConfigError: If a part cannot be made; the message names it, and the setting.
    """
    data = make(cfg, "data")
    given: dict[str, Any] = {}
    takes = _parameters(cfg, "task")
    if "model" in takes:
        given["model"] = _model(cfg, data)
    given |= {name: make(cfg, name) for name in ("optimizer", "schedule") if name in takes}
    task = make(cfg, "task", **given)
    if not isinstance(task, LightningModule):
        raise ConfigError(f"task: {cfg.task._target_} gives a {type(task).__name__}, which is no LightningModule")
    if not cfg.biases:
        without_biases(given.get("model", task))
    if "model" in given:
        with named(cfg, "init"):
            finish_init(cfg, given["model"], data)
    if isinstance(task, Task):
        with named(cfg, "optimizer"):
            task.make_optimizer()
    return Parts(task, data)


def make(cfg: DictConfig, part: str, **arguments: Any) -> Any:
    """Make one part of a config.

    A class that is not ours gets only those settings that it has parameters for: the others are of the class that it
    replaces. Settings of the command line are not left out but refused.

    Raises:
        ConfigError: If it cannot be made.
    """
    section = OmegaConf.select(cfg, part)
    if part in OF_A_USER and section is not None and _is_own(section):
        section = _taken(section, part, _parameters(cfg, part))
    with named(cfg, part):
        return instantiate(section, **arguments)


@contextmanager
def named(cfg: DictConfig, part: str) -> Iterator[None]:
    """Say which part of the config an error comes from."""
    try:
        yield
    except Exception as error:  # whatever a library raises at a wrong value: TypeError, AssertionError, its own
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, TypeError):
            check_numbers(cfg)  # which names the setting, where Python names two types
        raise ConfigError(f"{part}: {root}") from None


def _model(cfg: DictConfig, data: Any) -> Any:
    """Make the model, and tell it the sizes of the data that it takes and the config does not have."""
    given = {}
    takes = _parameters(cfg, "model")
    if not _is_own(cfg.model):
        takes |= {name: inspect.Parameter(name, _KEYWORD) for name in FEATURES}  # behind **arguments, too
    for name, parameter in takes.items():
        if name in FEATURES and name not in cfg.model:
            if hasattr(data, name):
                given[name] = getattr(data, name)
            elif parameter.default is inspect.Parameter.empty:
                raise ConfigError(
                    f"model: {cfg.model._target_} needs {name}, and the data ({cfg.data._target_}) have no attribute "
                    f"of that name: add it, or give +model.{name}=..."
                )
    return make(cfg, "model", **given)


def _is_own(section: DictConfig) -> bool:
    target = section.get("_target_", "") if not OmegaConf.is_missing(section, "_target_") else ""
    return bool(target) and not target.startswith(OURS)


def _parameters(cfg: DictConfig, part: str) -> dict[str, inspect.Parameter]:
    """The parameters of a part's class or function, by name; those of our classes as well."""
    section = OmegaConf.select(cfg, part)
    if section is None:
        raise ConfigError(
            f"there is no {part}: choose one ({part}=own {part}._target_=my_package.MyClass for your own)"
        )
    if OmegaConf.is_missing(section, "_target_"):
        raise ConfigError(
            f"{part}._target_ is missing: give the import path of your own, {part}._target_=my_package.MyClass"
        )
    with named(cfg, part):
        found = inspect.signature(get_object(section._target_)).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found.values()):
        return {**found, **{str(name): inspect.Parameter(str(name), _KEYWORD) for name in section}}
    return dict(found)


def _taken(section: DictConfig, part: str, parameters: dict[str, inspect.Parameter]) -> DictConfig:
    """The section without what its class has no parameter for."""
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return section
    left_out = [str(name) for name in section if not str(name).startswith("_") and str(name) not in parameters]
    for name in left_out:
        if f"{part}.{name}" in _of_command_line():
            known = [known for known in parameters if known != "self"]
            raise ConfigError(
                f"{part}.{name}: {section._target_} has no parameter {name!r}{did_you_mean(name, known)}; "
                f"it takes {', '.join(known) or 'none'}"
            )
    kept = OmegaConf.masked_copy(section, [str(name) for name in section if str(name) not in left_out])
    kept._set_parent(section._get_parent())  # its interpolations are of the whole config
    return kept


def _of_command_line() -> set[str]:
    """The settings that were given on the command line, where there is one."""
    if not HydraConfig.initialized():
        return set()
    overrides = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return {str(override.key_or_group) for override in overrides}
