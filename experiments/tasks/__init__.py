"""Tasks: what a model is trained for. Each logs ``train/loss`` and ``val/quality``: 1 is perfect, 0 is chance."""

from experiments.tasks.adversarial import Adversarial
from experiments.tasks.autoencoder import Reconstruction, Variational
from experiments.tasks.bandit import Bandit
from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task
from experiments.tasks.classifier import Classifier
from experiments.tasks.criteria import CriterionClassifier, CriterionRegressor
from experiments.tasks.density import Density, GaussianRegressor
from experiments.tasks.fine_tuning import FineTuning
from experiments.tasks.language import Language
from experiments.tasks.pretraining import MuonPretraining, Pretraining
from experiments.tasks.regressor import Regressor
from experiments.tasks.triplet import Triplet
from experiments.tasks.two_tasks import TwoTasks

__all__ = [
    "Adversarial",
    "Bandit",
    "Classifier",
    "CriterionClassifier",
    "CriterionRegressor",
    "Density",
    "FineTuning",
    "GaussianRegressor",
    "Language",
    "MakeOptimizer",
    "MakeSchedule",
    "MuonPretraining",
    "Pretraining",
    "Reconstruction",
    "Regressor",
    "Task",
    "Triplet",
    "TwoTasks",
    "Variational",
]
