"""Three small networks that go wrong, unguarded and guarded: ``python -m grad_callbacks.demo``.

Takes less than a minute on one core, and needs no file and no network. With MLflow installed the runs are in the store
of this folder afterwards.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard, GradientMonitor
from grad_callbacks._utils.lightning import LightningModule, Logger, Trainer, seed_everything

EXPERIMENT = "grad-callbacks-demo"
FEATURES, CLASSES = 64, 10
SAMPLES, TRAINED_ON = 1797, 1437  # as many as scikit-learn's digits, and four fifths of them
BATCH, EPOCHS = 32, 8


@dataclass(frozen=True)
class Scenario:
    """A network and what is wrong with it."""

    name: str
    what: str
    depth: int
    activation: Callable[[], nn.Module]
    rate: float
    bad_batch: int = -1  # the step whose batch holds a NaN


SCENARIOS = (
    Scenario("nan_batch", "one batch holds a NaN", 3, nn.ReLU, 0.05, bad_batch=100),
    Scenario("deep_sigmoid", "8 sigmoid layers: gradients vanish", 8, nn.Sigmoid, 0.05),
    Scenario("high_rate", "the learning rate is 10 times too high", 6, nn.ReLU, 0.5),
)


class Classifier(LightningModule):
    """A multilayer perceptron under SGD with momentum; logs ``val/accuracy``."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self.scenario = scenario
        sizes = [FEATURES, *[64] * (scenario.depth - 1), CLASSES]
        layers = [(nn.Linear(*pair), scenario.activation()) for pair in pairwise(sizes)]
        self.model = nn.Sequential(*[module for pair in layers for module in pair][:-1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss, of a spoiled batch at the step that the scenario names."""
        inputs, labels = batch
        if self.global_step == self.scenario.bad_batch:
            inputs = inputs.clone()
            inputs[0, 0] = torch.nan
        return nn.functional.cross_entropy(self.model(inputs), labels)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        inputs, labels = batch
        accuracy = (self.model(inputs).argmax(dim=1) == labels).float().mean()
        self.log("val/accuracy", accuracy, batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=self.scenario.rate, momentum=0.9)


def digits() -> tuple[str, Tensor, Tensor]:
    """Return what the data are, inputs and labels: scikit-learn's digits, or made ones where it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        draw = torch.Generator().manual_seed(0)
        labels = torch.randint(CLASSES, (SAMPLES,), generator=draw)
        centres = torch.randn(CLASSES, FEATURES, generator=draw)
        return "made clusters", centres[labels] + torch.randn(SAMPLES, FEATURES, generator=draw), labels
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images, dtype=torch.float32)
    return "scikit-learn's digits", (inputs - inputs.mean()) / inputs.std(), torch.tensor(labels)


def train(scenario: Scenario, guard: str, data: tuple[Tensor, Tensor], logger: Logger | None) -> tuple[float, Any]:
    """Train once; return the final accuracy and the callback.

    Args:
        scenario: What is trained.
        guard: ``"monitor"`` only watches, ``"full"`` treats.
        data: Inputs and labels.
        logger: Of the run, if any.
    """
    seed_everything(0, verbose=False)
    inputs, labels = data
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = [TensorDataset(inputs[some], labels[some]) for some in (order[:TRAINED_ON], order[TRAINED_ON:])]
    callback = GradientGuard() if guard == "full" else GradientMonitor()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=logger or False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    if logger is not None:
        logger.log_hyperparams({"scenario": scenario.name, "variant": "plain", "guard.name": guard, "seed": 0})
    trainer.fit(Classifier(scenario), DataLoader(parts[0], BATCH, shuffle=True), DataLoader(parts[1], len(parts[1])))
    return float(trainer.callback_metrics["val/accuracy"]), callback


def main() -> int:
    """Train every scenario twice, then print the comparison and how to browse it."""
    _quiet()
    torch.set_num_threads(1)  # such small networks are slower with more
    started, (kind, *data) = time.monotonic(), digits()
    has_mlflow = importlib.util.find_spec("mlflow") is not None
    _say(f"{len(SCENARIOS)} networks on {kind}, each watched only, then guarded.\n")
    rows: list[tuple[str, ...]] = [("network", "callback", "verdict", "outcome", "final accuracy")]
    for scenario in SCENARIOS:
        _say(f"--- {scenario.name}: {scenario.what}")
        for guard in ("monitor", "full"):
            logger = _logger(scenario, guard) if has_mlflow else None
            accuracy, callback = train(scenario, guard, (data[0], data[1]), logger)
            found = (type(callback).__name__, callback.verdict, callback.outcome, f"{accuracy:.3f}")
            rows.append((scenario.name, *found))
            if logger is not None:
                logger.close()
        _say("")
    _say(_table(rows))
    _say(f"\n{len(rows) - 1} runs in {time.monotonic() - started:.0f} s.")
    if has_mlflow:
        _say("Compare them:  grad-callbacks compare " + EXPERIMENT)
        _say("Browse them:   grad-callbacks ui")
    else:
        _say("With MLflow the runs are kept, each with a page of its own: pip install 'grad-callbacks[mlflow]'")
    return 0


def _logger(scenario: Scenario, guard: str) -> Any:
    from grad_callbacks.tracking import JournaledMLFlowLogger, default_store, prepare_store

    prepare_store(default_store())
    return JournaledMLFlowLogger(EXPERIMENT, run_name=f"{scenario.name}/{guard}")


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()  # the callbacks write to stderr: in order with it


def _quiet() -> None:
    """Leave the screen to the callbacks' own lines."""
    warnings.filterwarnings("ignore")
    for name in (
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
        "pytorch_lightning",
        "lightning_fabric",
        "mlflow",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
