"""Networks without biases, as most of today's are."""

from __future__ import annotations

from torch import nn


def without_biases(model: nn.Module) -> nn.Module:
    """Take away the biases of a network's layers, in place; those of recurrent layers are fixed at zero."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if "bias" not in name or parameter.ndim != 1:
                continue
            if isinstance(module, nn.RNNBase):  # its kernel takes them all or none
                nn.init.zeros_(parameter).requires_grad_(False)
            else:
                module.register_parameter(name, None)
    return model
