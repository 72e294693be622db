"""The same callbacks for users of `pytorch_lightning`, whose classes are others than those of `lightning.pytorch`."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from mlflow import MlflowClient
from torch import Tensor, nn

from grad_callbacks import GradientGuard, GradientMonitor
from tests.support.helpers import SGD, batches, mlp

pl = pytest.importorskip("pytorch_lightning")
from pytorch_lightning.cli import LightningCLI  # noqa: E402  # only where the package is
from pytorch_lightning.loggers import MLFlowLogger  # noqa: E402


class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
    """A regression; the loss of the step that is named is NaN."""

    def __init__(self, bad: int = -1) -> None:
        super().__init__()
        self.model, self.bad = mlp(4, 8, 2), bad

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        return loss * math.nan if self.global_step == self.bad else loss

    def train_dataloader(self) -> Any:
        return batches()

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.01)


QUIET = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def test_a_guard_works_and_resumes(tmp_path: Any) -> None:
    first, second = GradientGuard(), GradientGuard()
    run = pl.Trainer(callbacks=first, logger=False, **QUIET)
    run.fit(Module(bad=7))
    run.save_checkpoint(tmp_path / "last.ckpt")
    pl.Trainer(callbacks=[second], logger=False, **(QUIET | {"max_epochs": 2})).fit(
        Module(), ckpt_path=tmp_path / "last.ckpt"
    )
    assert [(made.step, made.remedy) for made in second.interventions] == [(7, "SkipStep")]
    assert sorted(set(second.history()["step"])) == list(range(64))
    assert second.outcome == "repaired"


def test_the_story_reaches_its_mlflow_logger(store: str, client: MlflowClient) -> None:
    logger = MLFlowLogger("other", tracking_uri=store)
    pl.Trainer(callbacks=[GradientMonitor()], logger=logger, **QUIET).fit(Module(bad=7))
    run = client.get_run(logger.run_id)
    assert run.data.tags["grad.verdict"] == "nonfinite"
    assert {entry.path for entry in client.list_artifacts(logger.run_id)} >= {"gradients"}


def test_its_command_line_takes_the_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "--trainer.callbacks+=grad_callbacks.GradientGuard"])
    cli = LightningCLI(Module, trainer_defaults={"logger": False, **QUIET}, run=False, save_config_callback=None)
    assert any(isinstance(callback, GradientGuard) for callback in cli.trainer.callbacks)
