"""Detectors: ours, and those that others have published, all on the very same recordings."""

from experiments.scoreboard.detectors.autotrainer import AutoTrainer
from experiments.scoreboard.detectors.base import Alarm, Detector, episodes
from experiments.scoreboard.detectors.deepchecker import TheDeepChecker
from experiments.scoreboard.detectors.megatron import Megatron
from experiments.scoreboard.detectors.olmo import OLMo
from experiments.scoreboard.detectors.ours import Ours, build_rules, replay
from experiments.scoreboard.detectors.sagemaker import SageMakerAll, SageMakerGradients
from experiments.scoreboard.detectors.spike_detection import SpikeDetection
from experiments.scoreboard.detectors.static_norm import StaticNorm
from experiments.scoreboard.detectors.zclip import ZClip


def all_detectors() -> list[Detector]:
    """Return ours with its defaults, then the others."""
    return [
        Ours(),
        SageMakerGradients(),
        SageMakerAll(),
        AutoTrainer(),
        AutoTrainer(every_step=True),
        TheDeepChecker(),
        StaticNorm(),
        ZClip(),
        OLMo(),
        SpikeDetection(),
        Megatron(),
    ]


__all__ = [
    "Alarm",
    "AutoTrainer",
    "Detector",
    "Megatron",
    "OLMo",
    "Ours",
    "SageMakerAll",
    "SageMakerGradients",
    "SpikeDetection",
    "StaticNorm",
    "TheDeepChecker",
    "ZClip",
    "all_detectors",
    "build_rules",
    "episodes",
    "replay",
]
