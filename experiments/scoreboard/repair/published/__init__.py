"""Remedies of others, from the first step on: written anew from their papers, or run as they are installed."""

from collections.abc import Callable

from lightning.pytorch import Callback

from experiments.scoreboard.repair.published.adagc import AdaGC
from experiments.scoreboard.repair.published.agc import AGC
from experiments.scoreboard.repair.published.arc_training import arc_training, is_installed
from experiments.scoreboard.repair.published.autoclip import AutoClip
from experiments.scoreboard.repair.published.base import Clipping
from experiments.scoreboard.repair.published.zclip import ZClip

PUBLISHED: dict[str, Callable[[], Callback]] = {
    "zclip": ZClip,
    "autoclip": AutoClip,
    "agc_from_start": AGC,
    "adagc": AdaGC,
    **({"arc_training": arc_training} if is_installed() else {}),
}

__all__ = ["AGC", "PUBLISHED", "AdaGC", "AutoClip", "Clipping", "ZClip"]
