"""The settings: how a language model is trained, what has been done to it, and the same without that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from experiments.corpus import CONF
from experiments.corpus.scenarios import configs

FOLDER = "language_model"
Split = Literal["tune", "score"]


@dataclass(frozen=True)
class Setting:
    """A setting of ``conf/experiment/language_model``.

    Attributes:
        name: Of its file.
        config: The composed run, without guard and logger.
        unhurt: What makes it its unhurt twin, by dotted name: the fault taken away, or the usual value. Empty where
            the setting is its own twin.
        what: The comment of its file.
    """

    name: str
    config: DictConfig
    unhurt: dict[str, Any]
    what: str

    @property
    def split(self) -> Split:
        """Its half (see :func:`half_of`)."""
        return half_of(self.name)

    @property
    def onset(self) -> int:
        """The step from which on it is hurt; 0 where that is the first, or it is not hurt at all."""
        return int(self.config.fault.step) if self.config.fault is not None else 0

    @property
    def twin(self) -> DictConfig:
        """The composed run without what hurts it."""
        config = self.config.copy()
        for name, value in self.unhurt.items():
            OmegaConf.update(config, name, value)
        return config


def load_settings(conf: Path = CONF, split: str = "all", names: Sequence[str] = ()) -> dict[str, Setting]:
    """Return the settings of a half, or those named, by name.

    Raises:
        ValueError: If there is no such setting, or one names something to take away that it does not have.
    """
    files = {file.stem: file for file in sorted((conf / "experiment" / FOLDER).glob("*.yaml"))}
    unknown = sorted(set(names) - set(files))
    if unknown:
        raise ValueError(f"there is no setting {unknown[0]!r} in conf/experiment/{FOLDER}")
    wanted = [name for name in files if (name in names if names else split in ("all", half_of(name)))]
    with configs(conf):  # composing is dear: only what is wanted
        return {name: _composed(name, files[name].read_text()) for name in wanted}


def _composed(name: str, text: str) -> Setting:
    overrides = [f"experiment={FOLDER}/{name}", "guard=none", "logger=none"]
    config = compose("config", overrides=[*overrides, "trainer.enable_progress_bar=false"])
    unhurt: Any = OmegaConf.to_container(config.expects).get("unhurt", {})  # type: ignore[union-attr]
    missing = [part for part in unhurt if OmegaConf.select(config, part) is None]
    if missing:
        raise ValueError(f"{FOLDER}/{name}: there is no {missing[0]} that could be taken away")
    config.scenario, config.expects = FOLDER, {}  # twins of several settings are one run
    return Setting(name, config, unhurt, text.splitlines()[1].lstrip("# "))


def half_of(name: str) -> Split:
    """Return ``"tune"`` or ``"score"``: whether the first byte of the name's SHA-256 is even or odd. Nobody chooses."""
    return "score" if hashlib.sha256(name.encode()).digest()[0] % 2 else "tune"
