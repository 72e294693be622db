"""The syllabus's remedies, each with the line to change."""

from __future__ import annotations

import math

from torch import nn

from grad_callbacks.detection.diagnosis.activations import is_activation
from grad_callbacks.detection.diagnosis.probes import Probes

_KEEPING = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "GELU", "SiLU", "Mish")


def replace_activation(exam: Probes, new: str = "ReLU") -> str:
    """Say which activation to exchange, and where the first of them stands."""
    for name, module in exam.case.model.named_modules():
        if is_activation(module) and type(module).__name__ == exam.activation:
            return f"`nn.{exam.activation}()` at {name} -> `nn.{new}()`, and so for the others"
    return f"`torch.{exam.activation.lower() or 'sigmoid'}` -> `torch.nn.functional.{new.lower()}`"


def initialise(exam: Probes, activation: str | None = None) -> str:
    """Say with what to initialise the first of the alert's layers."""
    kind = exam.activation if activation is None else activation
    weight = f"{_first_weight(exam)}.weight"
    if kind in _KEEPING:
        return f"He initialisation: `nn.init.kaiming_normal_({weight}, nonlinearity='relu')`, and so for the others"
    if kind == "Tanh":
        gain = ", gain=nn.init.calculate_gain('tanh')"
        return f"Xavier initialisation: `nn.init.xavier_normal_({weight}{gain})`, and so for the others"
    return f"Xavier initialisation: `nn.init.xavier_normal_({weight})`, and so for the others"


def normalise(exam: Probes) -> str:
    """Say where a normalisation goes and how large it is."""
    name = _first_weight(exam)
    module = exam.module(name)
    if isinstance(module, nn.modules.conv._ConvNd):
        kind = {1: "BatchNorm1d", 2: "BatchNorm2d", 3: "BatchNorm3d"}.get(len(module.kernel_size), "BatchNorm2d")
        return f"batch normalisation: `nn.{kind}({module.out_channels})` behind {name}, and so for the others"
    size = getattr(module, "out_features", "width")
    return f"batch normalisation: `nn.BatchNorm1d({size})` behind {name}, and so for the others"


def skip() -> str:
    """Say how a residual connection is written."""
    return "residual connections: `x = x + block(x)`"


def lower_rate(exam: Probes, share: float = 0.1) -> str:
    """Say what rate to take instead.

    Args:
        exam: Knows the optimizer.
        share: Of the present rate; 0.1 if it is NaN.
    """
    share = 0.1 if math.isnan(share) or share >= 1 else share
    optimizer = exam.case.optimizer
    if optimizer is None:
        return f"a learning rate {1 / share:.0f} times smaller"
    rate = float(optimizer.param_groups[0]["lr"] if exam.case.rates is None else exam.case.rates[0])
    return f"smaller learning rate: lr={rate:.3g} -> {rate * share:.2g} in {type(optimizer).__name__}"


def clip(exam: Probes) -> str:
    """Say at which norm to clip: the usual one of the run, or 1."""
    usual = exam.alert.evidence.get("reference", math.nan)
    at = usual if math.isfinite(usual) and usual > 0 else 1.0
    return f"clipping by norm: `Trainer(gradient_clip_val={at:.2g})` or `ClipNorm({at:.2g})`"


def warm_up() -> str:
    """Say how a warm-up is written."""
    schedule = "torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=100)"
    return f"warm-up: `{schedule}`, stepped every step"


def _first_weight(exam: Probes) -> str:
    """The first of the alert's layers that has a gain, or the first layer of all."""
    known = exam.gains
    return next((name for name in exam.alert.layers if name in known), next(iter(known), "layer"))
