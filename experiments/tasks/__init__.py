"""Tasks: what a model is trained for. Each logs ``train/loss`` and ``val/quality``: 1 is perfect, 0 is chance."""

from experiments.tasks.adversarial import Adversarial
from experiments.tasks.autoencoder import Reconstruction, Variational
from experiments.tasks.bandit import Bandit
from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task
from experiments.tasks.classifier import Classifier
from experiments.tasks.clipped_policy import ClippedPolicy
from experiments.tasks.criteria import CriterionClassifier, CriterionRegressor
from experiments.tasks.density import Density, GaussianRegressor
from experiments.tasks.fine_tuning import FineTuning
from experiments.tasks.language import Language
from experiments.tasks.mixture import Mixture
from experiments.tasks.muon import MuonClassifier
from experiments.tasks.pretraining import MuonPretraining, Pretraining
from experiments.tasks.regressor import Regressor
from experiments.tasks.transcription import Transcription
from experiments.tasks.triplet import Triplet
from experiments.tasks.two_tasks import TwoTasks
from experiments.tasks.wasserstein import Wasserstein

__all__ = [
    "Adversarial",
    "Bandit",
    "Classifier",
    "ClippedPolicy",
    "CriterionClassifier",
    "CriterionRegressor",
    "Density",
    "FineTuning",
    "GaussianRegressor",
    "Language",
    "MakeOptimizer",
    "MakeSchedule",
    "Mixture",
    "MuonClassifier",
    "MuonPretraining",
    "Pretraining",
    "Reconstruction",
    "Regressor",
    "Task",
    "Transcription",
    "Triplet",
    "TwoTasks",
    "Variational",
    "Wasserstein",
]
