"""Combinations of groups that make no sense are refused before anything is trained, with the reason."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from experiments.settings import ConfigError
from experiments.whole_inits import WholeInit

# What each group makes if nobody chooses: it stands in every config, whether or not the model uses it.
UNCHOSEN = {"activation": "torch.nn.ReLU", "norm": "torch.nn.Identity", "init": "experiments.inits.he"}
RECURRENT = {
    "activation": "its activation is part of its cell: model.cell=tanh, lstm or gru",
    "norm": "what is normal at one step of a sequence is not at the next",
    "init": "its recurrent weights have initialisations of their own: model.recurrent_init",
}
INSTEAD = {
    "Convolutional": {"norm": "add +model.norm='${norm}', or for batch norm model.batch_norm=true"},
    "ResidualConvolutional": {"norm": "its batch norm is model.batch_norm=true"},
    "Recurrent": RECURRENT,
    "Transformer": {"norm": "it has layer norms of its own, placed by model.pre_norm"},
}


def check_combination(cfg: DictConfig) -> None:
    """Refuse an activation, a normalisation or an initialisation that was chosen and that the model does not use.

    Raises:
        ConfigError: With the reason.
    """
    target = OmegaConf.select(cfg, "model._target_")
    if target is None:
        return
    model = str(target).rpartition(".")[2]
    raw = str(OmegaConf.to_container(cfg.model, resolve=False))
    for group, unchosen in UNCHOSEN.items():
        chosen = str(OmegaConf.select(cfg, f"{group}._target_", default=unchosen))
        if chosen != unchosen and group not in cfg.model and f"${{{group}}}" not in raw:
            reason = INSTEAD.get(model, {}).get(group, f"leave out {group}")
            raise ConfigError(f"{group}: {model} does not use {chosen.rpartition('.')[2]}: {reason}")


def finish_init(cfg: DictConfig, model: nn.Module, data: Any) -> None:
    """Let an initialisation of the whole net do its part; others have done theirs.

    Raises:
        ValueError: If it is not for such a net.
    """
    init = instantiate(cfg.init) if OmegaConf.select(cfg, "init._target_") else None
    if isinstance(init, WholeInit):
        init.finish(model, next(iter(data.train_dataloader()))[0])
