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
        """``"tune"`` or ``"score"``: whether the first byte of the name's SHA-256 is even or odd. Nobody chooses."""
        return "score" if hashlib.sha256(self.name.encode()).digest()[0] % 2 else "tune"

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


def load_settings(conf: Path = CONF) -> dict[str, Setting]:
    """Return all settings by name.

    Raises:
        ValueError: If one names something to take away that it does not have.
    """
    found = {}
    with configs(conf):
        for file in sorted((conf / "experiment" / FOLDER).glob("*.yaml")):
            overrides = [f"experiment={FOLDER}/{file.stem}", "guard=none", "logger=none"]
            config = compose("config", overrides=[*overrides, "trainer.enable_progress_bar=false"])
            unhurt: Any = OmegaConf.to_container(config.expects).get("unhurt", {})  # type: ignore[union-attr]
            missing = [name for name in unhurt if OmegaConf.select(config, name) is None]
            if missing:
                raise ValueError(f"{FOLDER}/{file.stem}: there is no {missing[0]} that could be taken away")
            config.scenario, config.expects = FOLDER, {}  # twins of several settings are one run
            found[file.stem] = Setting(file.stem, config, unhurt, file.read_text().splitlines()[1].lstrip("# "))
    return found


def choose(settings: dict[str, Setting], split: str, names: Sequence[str] = ()) -> list[Setting]:
    """Return those of one half, or those named.

    Raises:
        ValueError: If there is no such setting.
    """
    unknown = sorted(set(names) - set(settings))
    if unknown:
        raise ValueError(f"there is no setting {unknown[0]!r} in conf/experiment/{FOLDER}")
    return [one for one in settings.values() if (one.name in names if names else split in ("all", one.split))]
