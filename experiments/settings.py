"""Settings that nothing would read, and texts where a number belongs, are refused before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from grad_callbacks._utils.suggest import did_you_mean

CONF = Path(__file__).resolve().parent.parent / "conf"
EXPERIMENT = "experiment"  # a group that is merged into the others: no setting of that name is left
OF_SCENARIOS = ("clip", "resume_at")  # top-level settings that only some scenarios have
OF_A_GUARD = ("name", "callback")


class ConfigError(ValueError):
    """A value of the config is wrong; the message names it. An error of the training itself keeps its traceback."""


def check_names(cfg: DictConfig) -> None:
    """Refuse a setting that nothing reads: a run of other settings would be taken for the one that was meant.

    Raises:
        ConfigError: At the first one; the message has the nearest known name.
    """
    known = {*settings(), *OF_SCENARIOS}
    for name in map(str, cfg):
        if name not in known:
            hint = did_you_mean(name, {*known, EXPERIMENT}) or f"; there are {', '.join(sorted(known))}"
            raise ConfigError(f"there is no setting {name!r}{hint} (a group is chosen without +: experiment=high_lr)")
    for name in map(str, cfg.guard or {}):
        if name not in OF_A_GUARD:
            raise ConfigError(
                f"there is no setting 'guard.{name}'; arguments of the callback are guard.callback.{name}=..."
            )


def check_numbers(cfg: DictConfig) -> None:
    """Refuse a text where the config's files have a number.

    Raises:
        ConfigError: At the first one.
    """
    for group in sorted(_groups() & set(map(str, cfg))):
        section = cfg[group]
        if isinstance(section, DictConfig):
            for name, value in _leaves(OmegaConf.to_container(section, resolve=True), f"{group}."):
                if isinstance(value, str) and name in numbers(group):
                    raise ConfigError(f"{name} must be a number, got {value!r}")


@cache
def settings() -> frozenset[str]:
    """The top-level settings: those of ``config.yaml`` and one for each group."""
    main = OmegaConf.load(CONF / "config.yaml")
    own = {str(name) for name in main if name not in ("defaults", "hydra")}
    return frozenset(own | (_groups() - {EXPERIMENT}))


@cache
def numbers(group: str) -> frozenset[str]:
    """The settings of a group that have a number in one of its files, such as ``optimizer.lr``."""
    files = (CONF / group).rglob("*.yaml")
    leaves = (leaf for file in files for leaf in _leaves(OmegaConf.to_container(OmegaConf.load(file)), f"{group}."))
    return frozenset(name for name, value in leaves if isinstance(value, int | float) and not isinstance(value, bool))


@cache
def _groups() -> frozenset[str]:
    return frozenset(folder.name for folder in CONF.iterdir() if folder.is_dir())


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in config.items() if isinstance(config, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
