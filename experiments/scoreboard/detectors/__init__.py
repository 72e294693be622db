"""Detectors: ours, and those that others have published, all on the very same recordings."""

from experiments.scoreboard.detectors.base import Alarm, Detector, episodes
from experiments.scoreboard.detectors.ours import Ours, build_rules

__all__ = ["Alarm", "Detector", "Ours", "build_rules", "episodes"]
