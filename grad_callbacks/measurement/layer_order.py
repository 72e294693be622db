"""The order in which the forward pass runs the layers."""

from __future__ import annotations

import re
from functools import partial

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.compiled import WRAPPED_NAME

# What wrappers put into module names: torch.compile, FSDP, activation checkpointing, Fabric, parametrizations.
_WRAPPING = re.compile(
    rf"({WRAPPED_NAME}|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)(\.|$)|\.?parametrizations\..*$"
)


def clean_name(name: str) -> str:
    """Return a module's name as its author wrote it, without what wrappers add to it."""
    return _WRAPPING.sub("", name).rstrip(".")


def owners(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules that own parameters directly, with their layer's name, in the order of registration.

    A layer's parametrizations are modules of their own, under the same name.
    """
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            wrapped = getattr(module, "_fsdp_wrapped_module", module)
            found.append((clean_name(name) or type(wrapped).__name__, module))
    return found


def parameters_by_layer(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return each parameter with its layer's name, in the order of registration; a tied one with each of its layers.

    Each entry of a ``ParameterList`` or ``ParameterDict`` is a layer of its own: such a list holds the weights of
    many layers that are written as functions.
    """
    found: list[tuple[str, nn.Parameter]] = []
    for name, module in owners(model):
        is_list = isinstance(module, nn.ParameterList | nn.ParameterDict)
        for key, parameter in module.named_parameters(recurse=False):
            found.append((f"{name}.{key}" if is_list else name, parameter))
    return found


def order_of_use(loss: Tensor, model: nn.Module) -> list[str]:
    """Return the layers that ``loss`` depends on, in the order of their first use, read off its autograd graph.

    No hook is needed, so nothing is compiled again under ``torch.compile``: a compiled region is one node, whose
    inputs are in the order of first use, and other nodes are numbered as they are made. The graph may have been
    used for the backward pass already. Parameters that need no gradient are not in it, nor is what reentrant
    activation checkpointing hides.
    """
    layer_of = {id(parameter): name for name, parameter in reversed(parameters_by_layer(model))}
    first_use: dict[str, tuple[int, int]] = {}
    nodes = [] if loss.grad_fn is None else [loss.grad_fn]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        for place, (origin, _) in enumerate(node.next_functions):
            if origin is None:
                continue
            if type(origin).__name__ != "AccumulateGrad":
                if origin not in seen:
                    seen.add(origin)
                    nodes.append(origin)
            elif (layer := layer_of.get(id(origin.variable))) is not None:  # type: ignore[attr-defined]  # a leaf's
                use = (node._sequence_nr(), place)
                first_use[layer] = min(first_use.get(layer, use), use)
    return sorted(first_use, key=first_use.__getitem__)


class ForwardHooks:
    """Finds the order of use by hooks on the layers, which are removed after one step.

    For sharded models, whose graph holds gathered copies of the parameters instead of the parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        self.called: list[str] = []
        self._handles: list[RemovableHandle] = [
            module.register_forward_pre_hook(partial(self._note, name)) for name, module in owners(model)
        ]

    def remove(self) -> None:
        """Take the hooks away; what was found so far stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _note(self, layer: str, module: nn.Module, inputs: object) -> None:
        if layer not in self.called:
            self.called.append(layer)
