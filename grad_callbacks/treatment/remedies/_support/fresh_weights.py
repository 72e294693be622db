"""Fresh weights for all layers of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from grad_callbacks.treatment.remedies._support.recurrent_init import Sequences, initialise_recurrent
from grad_callbacks.treatment.remedies._support.weight_fill import Scheme, refill

_RNN = (nn.RNNBase, nn.RNNCellBase)
_CONV = nn.modules.conv._ConvNd


@torch.no_grad()
def start_again(
    model: nn.Module, scheme: Scheme, activation: str, read: Mapping[nn.Module, Sequences] = MappingProxyType({})
) -> None:
    """Give every linear, convolution, recurrent and attention layer fresh weights, and biases of zero.

    The present weights are made orthogonal or rescaled instead of drawn again: they are the user's own random numbers,
    the same on every process. Only weights without any spread are drawn, by a generator of their own.

    Args:
        model: Is changed in place.
        scheme: ``"lsuv"`` and ``"orthogonal"`` make orthogonal weights, ``"he"`` and ``"xavier"`` random ones of the
            deviation that He et al. 2015 and Glorot & Bengio 2010 derive.
        activation: Its gain is applied to orthogonal weights.
        read: What recurrent layers read, as far as it is known.
    """
    gain = math.sqrt(2.0) if activation.endswith("ReLU") or activation in ("GELU", "SiLU", "ELU") else 1.0
    for seed, module in enumerate(model.modules()):
        if isinstance(module, _RNN):
            initialise_recurrent(module, seed, read.get(module, Sequences()))
        elif isinstance(module, nn.MultiheadAttention):
            for weight in module.parameters(recurse=False):
                if weight.ndim >= 2:
                    refill(weight, "xavier", 1.0, seed)
                else:
                    weight.zero_()
        elif isinstance(module, (nn.Linear, _CONV)):
            refill(module.weight, scheme, gain, seed)
            if module.bias is not None:
                module.bias.zero_()
