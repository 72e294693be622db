"""How the error comes back through a net at its start: one number a layer, or a step of a sequence, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.models import MLP, Convolutional, Recurrent, ResidualConvolutional, ResidualMLP, Transformer
from experiments.syllabus import theory

EDGE = 2  # layers at either end that are left out of the fit: input and head are of another kind
LEAST = 8  # layers that a net must have for that


class Profile:
    """The error at each station of a net, from its input on, for one batch at the start.

    A station is a hidden layer (its output before normalisation and activation), a residual block, a transformer layer,
    or a step of a recurrent net.

    Args:
        model: A model of one of the kinds that the syllabus uses; it is copied and stays as it is.
        inputs: A batch's inputs.
        targets: Its classes.

    Attributes:
        errors: Root mean square of the loss's gradient at each station.
        weight_ratio: Root mean square of the first station's weight gradient over the last's; NaN for a recurrent net.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        net = copy.deepcopy(model).double().train()
        x = inputs.double() if inputs.is_floating_point() else inputs
        with torch.enable_grad():
            stations, logits = _through_time(net, x) if isinstance(net, Recurrent) else _through_layers(net, x)
            loss = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
            loss.backward()
        self.errors = [_rms([tensor.grad for tensor in tensors]) for tensors in stations]
        places = _places(net)
        first, last = (_rms([p.grad for p in place.parameters() if p.ndim > 1]) for place in (places[0], places[-1]))
        self.weight_ratio = math.nan if isinstance(net, Recurrent) else _ratio(first, last)

    @property
    def decay(self) -> float:
        """Factor per station of the error on its way back, by a fit over the middle; below 1 it vanishes."""
        return decay(self.errors)

    @property
    def ratio(self) -> float:
        """The first station's error over the last's."""
        return _ratio(self.errors[0], self.errors[-1])


def decay(errors: Sequence[float]) -> float:
    """Return the factor per station by a least-squares fit of the logarithms over the middle stations."""
    middle = errors[EDGE:-EDGE] if len(errors) >= LEAST else errors
    if len(middle) < 2 or not all(math.isfinite(error) for error in middle):
        return math.nan
    if min(middle) == 0:
        return 0.0
    logs = torch.tensor([math.log(error) for error in middle], dtype=torch.float64)
    places = torch.arange(len(middle), dtype=torch.float64)
    places -= places.mean()
    return math.exp(-float((places * logs).sum() / places.square().sum()))


def predicted(model: nn.Module, inputs: Tensor) -> float:
    """Return the same factor as mean-field theory has it, from the net's own weights; NaN where there is no theory."""
    if not isinstance(model, MLP) or any(
        block.residual or not isinstance(block.norm, nn.Identity) for block in model.blocks
    ):
        return math.nan
    layers = [_layer(block.linear) for block in model.blocks]
    activation = copy.deepcopy(model.blocks[0].activation)
    found = theory.factors(activation, layers, float(inputs.double().square().mean()))
    errors = [1.0]
    for one in reversed(found):
        errors.insert(0, errors[0] * one)
    return decay(errors)


def _layer(linear: Any) -> theory.Layer:
    weights = linear.in_features * float(linear.weight.detach().double().square().mean())
    if linear.bias is None:
        return theory.Layer(weights)
    bias = linear.bias.detach().double()
    return theory.Layer(weights, float(bias.var(correction=0)), float(bias.mean()))


def _places(model: Any) -> list[nn.Module]:
    """Return the modules whose outputs are the stations, from the input on."""
    if isinstance(model, MLP):
        return [block.linear for block in model.blocks]
    if isinstance(model, Convolutional):
        return [module for module in model.features if isinstance(module, nn.Conv2d)]
    if isinstance(model, ResidualMLP | ResidualConvolutional):
        return list(model.blocks)
    if isinstance(model, Transformer):
        return list(model.layers)
    if isinstance(model, Recurrent):
        return [model.cell]
    raise TypeError(f"the syllabus does not know where to measure in {type(model).__name__}")


def _through_layers(model: nn.Module, inputs: Tensor) -> tuple[list[tuple[Tensor, ...]], Tensor]:
    seen: list[tuple[Tensor, ...]] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        seen.append((output,))

    handles = [place.register_forward_hook(keep) for place in _places(model)]
    logits = model(inputs)
    for handle in handles:
        handle.remove()
    return seen, logits


def _through_time(model: Recurrent, inputs: Tensor) -> tuple[list[tuple[Tensor, ...]], Tensor]:
    """Run a recurrent net of one layer step by step: its own kernel does not show the states' gradients."""
    seen: list[tuple[Tensor, ...]] = []
    state: Any = None
    for step in range(inputs.shape[1]):
        _, state = model.cell(inputs[:, step : step + 1], state)
        tensors = state if isinstance(state, tuple) else (state,)
        for tensor in tensors:
            tensor.retain_grad()
        seen.append(tensors)
    logits: Tensor = model.head(seen[-1][0][-1])
    return seen, logits


def _rms(gradients: Sequence[Tensor | None]) -> float:
    known = [gradient.flatten() for gradient in gradients if gradient is not None]
    return float(torch.cat(known).square().mean().sqrt()) if known else 0.0


def _ratio(first: float, last: float) -> float:
    return first / last if last else math.nan
