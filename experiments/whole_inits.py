"""Initialisations that need the whole net, or a batch that runs through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments import inits
from experiments.models.residual import Residual

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class WholeInit(ABC):
    """Initialises layers one by one while the net is made, and once more when it is whole."""

    def __call__(self, layer: inits.Layer) -> None:
        """Initialise one layer in place, as it is made."""
        inits.he(layer)

    @abstractmethod
    def finish(self, model: nn.Module, inputs: Tensor) -> None:
        """Initialise the whole net in place.

        Args:
            model: The net.
            inputs: A training batch's inputs.

        Raises:
            ValueError: If it is not for nets of this kind.
        """


class LSUV(WholeInit):
    """Orthogonal weights, then layer by layer in the order of the forward pass: divided by the deviation of outputs.

    Args:
        tolerance: A layer is done when the variance of its outputs is this close to 1.
        tries: So many divisions at most; one is enough where no layer is used twice.

    References:
        Mishkin & Matas 2015, "All you need is a good init", arXiv 1511.06422, algorithm 1.
    """

    def __init__(self, tolerance: float = 0.1, tries: int = 10) -> None:
        self.tolerance, self.tries = tolerance, tries

    def __call__(self, layer: inits.Layer) -> None:
        """Initialise one layer in place."""
        inits.orthogonal(layer)

    @torch.no_grad()
    def finish(self, model: nn.Module, inputs: Tensor) -> None:
        """Scale the layers; see the class."""
        if not any(isinstance(module, nn.Linear | nn.Conv2d) for module in model.modules()):
            raise ValueError("LSUV scales linear layers and convolutions, and this net has none")
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            raise ValueError("LSUV scales each layer once, but a recurrent layer runs at every step of a sequence")
        for layer in _in_forward_order(model, inputs):
            for _ in range(self.tries):
                variance = float(_outputs(model, layer, inputs).var())
                if abs(variance - 1) < self.tolerance or variance == 0:
                    break
                layer.weight.div_(variance**0.5)


class Fixup(WholeInit):
    """He's weights; in each residual branch scaled by ``blocks ** (-1 / (2 m - 2))``, the branch's last and the head 0.

    ``m`` is the number of layers of a branch. The paper's scalar biases and multipliers are left out.

    References:
        Zhang et al. 2019, "Fixup Initialization: Residual Learning Without Normalization", arXiv 1901.09321.
    """

    @torch.no_grad()
    def finish(self, model: nn.Module, inputs: Tensor) -> None:
        """Scale the branches; see the class."""
        branches = [module.branch for module in model.modules() if isinstance(module, Residual)]
        if not branches:
            raise ValueError("Fixup starts residual branches at zero, and this net has none: model=residual_mlp has")
        if any(isinstance(module, NORMS) for module in model.modules()):
            raise ValueError("Fixup takes the place of a normalisation: choose norm=none with it")
        for branch in branches:
            layers = [module for module in branch.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
            for layer in layers[:-1]:
                layer.weight.mul_(len(branches) ** (-1 / (2 * len(layers) - 2)))
            layers[-1].weight.zero_()
        nn.init.zeros_(model.get_submodule("head").weight)  # type: ignore[arg-type]


def _in_forward_order(model: nn.Module, inputs: Tensor) -> list[inits.Layer]:
    found: list[inits.Layer] = []

    def note(module: Any, _inputs: Any, _outputs: Any) -> None:
        if module not in found:
            found.append(module)

    _hooked(model, [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)], note, inputs)
    return found


def _outputs(model: nn.Module, layer: inits.Layer, inputs: Tensor) -> Tensor:
    seen: list[Tensor] = []
    _hooked(model, [layer], lambda _module, _inputs, outputs: seen.append(outputs), inputs)
    return seen[0]


def _hooked(model: nn.Module, layers: list[Any], hook: Callable[[Any, Any, Any], None], inputs: Tensor) -> None:
    handles = [layer.register_forward_hook(hook) for layer in layers]
    was_training = model.training
    model.eval()  # a forward pass of ours is no batch that a normalisation should remember
    try:
        model(inputs)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
