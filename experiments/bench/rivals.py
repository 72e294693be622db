"""What else one would put into a Trainer to see its gradients."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import grad_norm


class LogGradNorms(Callback):
    """Logs Lightning's ``grad_norm`` of every parameter in every step."""

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure and log."""
        pl_module.log_dict(grad_norm(pl_module, norm_type=2))


class WandbWatch(Callback):
    """Histograms of every gradient in every step, by Weights & Biases, without a network."""

    def __init__(self, folder: str) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(mode="offline", dir=folder, settings={"silent": True, "console": "off"})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the hooks."""
        self._run.watch(pl_module, log="gradients", log_freq=1)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Commit what the hooks have found in this step."""
        self._run.log({"step": trainer.global_step})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks away."""
        self._run.unwatch(pl_module)
        self._run.finish()


def installed(package: str) -> bool:
    """Return whether ``package`` can be imported."""
    return find_spec(package) is not None


def zclip() -> Callback:
    """Return ZClip's own callback with its defaults."""
    callback: Callback = importlib.import_module("zclip").ZClipLightningCallback()
    return callback
