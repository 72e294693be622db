"""A paired run: one scenario at one rate, seed and kind of arithmetic, under each treatment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig

from experiments.corpus.scenarios import configs
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.published import PUBLISHED
from experiments.scoreboard.repair.treating import trained
from experiments.scoreboard.repair.treatments import BARE, Treatment

# Scenario, and the one that shows what its net can learn: families that a rate too high breaks.
SCENARIOS = {
    "high_lr": "healthy",
    "corpus/rate_sgd": "corpus/mlp_relu",
    "corpus/rate_momentum": "corpus/mlp_relu",
    "corpus/rate_cnn_momentum": "corpus/ref_cnn",
    "corpus/rate_residual": "corpus/ref_residual",
    "corpus/rate_adam": "corpus/mlp_relu",
    "corpus/rate_cnn_adam": "corpus/ref_cnn",
    "corpus/rate_transformer_adamw": "corpus/ref_transformer_pre",
    "corpus/rate_gru_adam": "corpus/gru_rows",
}
SINGLE = ("clip_norm", "clip_value", "adaptive_clip", "agc", "reduce_lr", "rollback", "warmup")
OTHERS = ("lightning_clip_1", *PUBLISHED, "random")
ARITHMETICS = ("default", "avx2", "avx512")  # of torch's own kernels: values of ATEN_CPU_CAPABILITY


@dataclass(frozen=True)
class Pair:
    """One run and the files of its outcomes.

    Attributes:
        scenario: Name of the experiment.
        rate: What its learning rate is multiplied with.
        seed: Its seed.
        arithmetic: One of :data:`ARITHMETICS`.
        treatments: With what it is trained.
        folder: Of the outcomes.
    """

    scenario: str
    rate: float
    seed: int
    arithmetic: str
    treatments: Sequence[Treatment]
    folder: Path

    @property
    def is_due(self) -> bool:
        """True if an outcome is missing."""
        return not all(self.path(treatment).exists() for treatment in (BARE, *self.treatments))

    def path(self, treatment: Treatment) -> Path:
        """The file of an outcome; ``BARE`` stands for the reference, which is trained at its own rate."""
        key = hashlib.sha256(json.dumps(treatment.key()).encode()).hexdigest()[:12]
        name = SCENARIOS[self.scenario] if treatment is BARE else f"{self.scenario}-x{self.rate:g}"
        return self.folder / f"{name.replace('/', '_')}-{self.seed}-{self.arithmetic}-{treatment.name}-{key}.json"

    def outcome(self, treatment: Treatment) -> Outcome:
        """Read what came of it."""
        return Outcome.read(self.path(treatment))


def train(pair: Pair, conf: Path) -> None:
    """Train what is missing of a run, and write what came of it."""
    with configs(conf):
        if not pair.path(BARE).exists():
            reference = _composed(SCENARIOS[pair.scenario], pair.seed)
            trained(SCENARIOS[pair.scenario], pair.seed, BARE, reference).write(pair.path(BARE))
        cfg = _composed(pair.scenario, pair.seed)
        cfg.optimizer.lr = pair.rate * cfg.optimizer.lr
        for treatment in pair.treatments:
            if not pair.path(treatment).exists():
                trained(pair.scenario, pair.seed, treatment, cfg).write(pair.path(treatment))


def _composed(experiment: str, seed: int) -> DictConfig:
    quietly = ["guard=none", "logger=none", "trainer.enable_progress_bar=false"]
    return compose("config", overrides=[f"experiment={experiment}", f"seed={seed}", *quietly])
