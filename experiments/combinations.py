"""Combinations of groups that make no sense are refused before anything is trained, with the reason."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from experiments.settings import ConfigError
from experiments.whole_inits import WholeInit

IDENTITY = "torch.nn.Identity"
INSTEAD = {
    "Convolutional": "add +model.norm='${norm}', or for batch norm model.batch_norm=true",
    "ResidualConvolutional": "its batch norm is model.batch_norm=true",
    "Recurrent": "what is normal at one step of a sequence is not at the next",
    "Transformer": "it has layer norms of its own, placed by model.pre_norm",
}


def check_combination(cfg: DictConfig) -> None:
    """Refuse a normalisation, or an initialisation of the whole net, that the model would not use.

    Raises:
        ConfigError: With the reason.
    """
    model = str(OmegaConf.select(cfg, "model._target_") or "").rpartition(".")[2]
    if "norm" not in (cfg.model or {}) and OmegaConf.select(cfg, "norm._target_", default=IDENTITY) != IDENTITY:
        norm = str(cfg.norm._target_).rpartition(".")[2]
        raise ConfigError(f"norm: {model} does not use {norm}: {INSTEAD.get(model, 'choose norm=none')}")
    if "init" not in (cfg.model or {}) and str(OmegaConf.select(cfg, "init._target_")).startswith("experiments.whole_"):
        raise ConfigError(f"init: {model} is initialised by itself and does not use {cfg.init._target_}")


def finish_init(cfg: DictConfig, model: nn.Module, data: Any) -> None:
    """Let an initialisation of the whole net do its part; others have done theirs.

    Raises:
        ValueError: If it is not for such a net.
    """
    init = instantiate(cfg.init) if OmegaConf.select(cfg, "init._target_") else None
    if isinstance(init, WholeInit):
        init.finish(model, next(iter(data.train_dataloader()))[0])
