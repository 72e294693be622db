"""Remedies as others have published them, from the first step on, written anew from their papers."""

from experiments.scoreboard.repair.published.adagc import AdaGC
from experiments.scoreboard.repair.published.agc import AGC
from experiments.scoreboard.repair.published.autoclip import AutoClip
from experiments.scoreboard.repair.published.base import Clipping
from experiments.scoreboard.repair.published.zclip import ZClip

PUBLISHED: dict[str, type[Clipping]] = {"zclip": ZClip, "autoclip": AutoClip, "agc_from_start": AGC, "adagc": AdaGC}

__all__ = ["AGC", "PUBLISHED", "AdaGC", "AutoClip", "Clipping", "ZClip"]
