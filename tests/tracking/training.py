"""A short training that logs its loss in every step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import MLFlowLogger

STEPS = 12


class Model(BoringModel):
    """Logs its loss in every step, and can be told to go wrong in one."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.save_hyperparameters({"lr": 0.1, "api_key": "hush"})
        self.error = error

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.error is not None and self.global_step == 3:
            raise self.error
        output = super().training_step(batch, batch_idx)
        self.log("loss", output["loss"])
        return output


def fit(to: MLFlowLogger, model: LightningModule | None = None, *callbacks: Callback, steps: int = STEPS) -> Trainer:
    trainer = Trainer(
        max_steps=steps,
        log_every_n_steps=1,
        logger=to,
        callbacks=list(callbacks),
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    trainer.fit(model or Model())
    return trainer
