"""Advice texts, each with the line of code to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.activations import is_activation
from grad_callbacks.detection.diagnosis.probes import Probes


@dataclass(frozen=True)
class AdviceThresholds(Thresholds):
    """Numbers in the advice."""

    rate_share: float = threshold(
        0.1, "share of the learning rate to take where none is known to help", unit="share", source="not measured"
    )
    second_beta: float = threshold(
        0.95,
        "decay of the squared gradients that language models are trained with",
        unit="1",
        source="Brown et al. 2020, GPT-3, appendix B; Touvron et al. 2023, LLaMA, sec. 2.3",
    )


LIMITS = AdviceThresholds()

_RECTIFIERS = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "GELU", "SiLU", "Mish")


def replace_activation(probes: Probes, new: str = "ReLU") -> str:
    """Say which activation to replace, and name the first of them."""
    for name, module in probes.case.model.named_modules():
        if is_activation(module) and type(module).__name__ == probes.activation:
            return f"`nn.{probes.activation}()` at {name} -> `nn.{new}()`, likewise for the others"
    return f"`torch.{probes.activation.lower() or 'sigmoid'}` -> `torch.nn.functional.{new.lower()}`"


def initialise(probes: Probes, activation: str | None = None) -> str:
    """Say how to initialise the first of the alert's layers."""
    kind = probes.activation if activation is None else activation
    weight = f"{_first_weight(probes)}.weight"
    if kind in _RECTIFIERS:
        return f"He initialisation: `nn.init.kaiming_normal_({weight}, nonlinearity='relu')`, likewise for the others"
    if kind == "Tanh":
        gain = ", gain=nn.init.calculate_gain('tanh')"
        return f"Xavier initialisation: `nn.init.xavier_normal_({weight}{gain})`, likewise for the others"
    return f"Xavier initialisation: `nn.init.xavier_normal_({weight})`, likewise for the others"


def normalise(probes: Probes) -> str:
    """Say which normalisation to add where; empty where each layer has one, or where only the head is left."""
    structure = probes.structure
    if structure.has_attention:
        if not structure.norms:
            return "layer normalisation before each block: `x = x + block(nn.LayerNorm(width)(x))`"
        return normalise_scores()
    name = _first_weight(probes)
    if probes.is_normalised or name == next(reversed(probes.gains), ""):
        return ""
    module = probes.module(name)
    if isinstance(module, nn.modules.conv._ConvNd):
        kind = f"BatchNorm{len(module.kernel_size)}d"
        return f"batch normalisation: `nn.{kind}({module.out_channels})` after {name}, likewise for the others"
    size = getattr(module, "out_features", "width")
    return f"batch normalisation: `nn.BatchNorm1d({size})` after {name}, likewise for the others"


def normalise_scores() -> str:
    """Say how to keep the scores of attention small."""
    return "queries and keys of unit size (QK-norm): `q, k = nn.RMSNorm(head)(q), nn.RMSNorm(head)(k)`"


def skip() -> str:
    """Say how to write a residual connection."""
    return "residual connections: `x = x + block(x)`"


def lower_rate(probes: Probes, share: float = LIMITS.rate_share) -> str:
    """Say which learning rate to use instead.

    Args:
        probes: Knows the optimizer.
        share: Of the present rate; the default if it is NaN, or 1 or more.
    """
    share = share if share < 1 else LIMITS.rate_share
    optimizer = probes.case.optimizer
    if optimizer is None:
        return f"a learning rate {1 / share:.0f} times smaller"
    group = optimizer.param_groups[0]
    rate = float(group["lr"] if probes.case.rates is None else probes.case.rates[0])
    peak = float(group.get("max_lr", group.get("initial_lr", rate)))  # as its scheduler was given it
    kind = type(optimizer).__name__
    if probes.is_rate_raised and rate > peak > 0:
        return f"the learning rate as it was given: lr={rate:.3g} in this step, lr={peak:.3g} in {kind}"
    if 0 < rate < peak:
        return f"smaller peak of the schedule: lr={peak:.3g} -> {peak * share:.2g} in {kind}"
    return f"smaller learning rate: lr={rate:.3g} -> {rate * share:.2g} in {kind}"


def shorter_memory(probes: Probes) -> str:
    """Say how Adam can forget a large gradient sooner; empty for other optimizers, and where it does."""
    groups = probes.case.optimizer.param_groups if probes.case.optimizer is not None else []
    betas: Sequence[float] = groups[0].get("betas", ()) if groups else ()
    if not probes.structure.has_attention or len(betas) < 2 or not float(betas[1]) > LIMITS.second_beta:
        return ""
    return f"a mean of squared gradients that follows sooner: betas=({betas[0]:g}, {LIMITS.second_beta:g})"


def clip(probes: Probes) -> str:
    """Say at which norm to clip: the usual one of the run, or 1 if it is unknown."""
    usual = probes.alert.evidence.reference
    at = usual if usual is not None and 0 < usual < math.inf else 1.0
    return f"clipping by norm: `Trainer(gradient_clip_val={at:.2g})` or `ClipNorm({at:.2g})`"


def warm_up(probes: Probes) -> str:
    """Say how to write a warm-up, or that there should be more of it."""
    if probes.is_warmed_up:
        return "a longer warm-up"
    schedule = "torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=100)"
    return f"warm-up: `{schedule}`, with `scheduler.step()` after every step"


def _first_weight(probes: Probes) -> str:
    """The first of the alert's layers with a weight, or else the first layer of the model."""
    known = probes.gains
    return next((name for name in probes.alert.layers if name in known), next(iter(known), "layer"))
