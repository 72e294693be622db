"""Layer-sequential unit variance: scale every layer so that its output has unit size on one batch.

Mishkin & Matas 2016, "All you need is a good init", algorithm 1: orthogonal weights, then each layer in turn is divided
by the deviation of its output on a batch. Here one forward pass does it: a hook corrects each layer's output before
the next layer sees it, and notes the factor.

Activations whose mean is not zero (sigmoid) hide the signal behind a constant; there each unit's mean on the batch goes
into its bias too (Salimans & Kingma 2016, "Weight Normalization", sec. 3). The last layer of a residual branch is
scaled down by the root of the number of branches, so that their sum keeps its size (Zhang et al. 2019, "Fixup").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.replay import undisturbed


@dataclass(frozen=True)
class LSUVThresholds(Thresholds):
    """The numbers of layer-sequential unit variance."""

    positive_output_size: float = threshold(
        0.05,
        "root mean square of the last output behind activations that are all positive, 1 elsewhere: their mean makes "
        "the curvature of the last layer large",
        unit="1",
        source="not measured",
    )


LIMITS = LSUVThresholds()

POSITIVE = ("Sigmoid", "Hardsigmoid", "Softplus")  # activations whose outputs are all positive

_CONV = nn.modules.conv._ConvNd


@dataclass
class Correction:
    """What the pass has found for one layer: a factor for the weight, and a bias of its own.

    Attributes:
        scale: The factor.
        shift: Subtracted from each unit's output, shape ``(units,)``; None for nothing.
    """

    scale: float = 1.0
    shift: Tensor | None = None


@dataclass
class Draft:
    """The layers that an initialisation changes, and what they do on a batch.

    Attributes:
        model: Has the layers.
        activation: The name of its activations' class.
        branch_ends: Size of a layer's output, by the id of its weight, for the last layers of residual branches.
    """

    model: nn.Module
    activation: str = ""
    branch_ends: Mapping[int, float] = field(default_factory=dict)

    def layers(self) -> dict[str, nn.Module]:
        """Return the layers whose output is scaled, by name."""
        kinds = (nn.Linear, _CONV, nn.MultiheadAttention)
        inner = {id(m.out_proj) for m in self.model.modules() if isinstance(m, nn.MultiheadAttention)}
        return {n: m for n, m in self.model.named_modules() if isinstance(m, kinds) and id(m) not in inner}


def measure(draft: Draft, replay: Callable[[], Tensor]) -> dict[str, Correction]:
    """Run the batch forward once, each layer's output corrected on its way, and return the corrections by layer.

    The model is left as it was.
    """
    corrections: dict[str, Correction] = {}
    layers = draft.layers()
    with undisturbed(draft.model):
        order: list[str] = []
        handles = [m.register_forward_pre_hook(partial(_note, order, name)) for name, m in layers.items()]
        try:
            replay()
        finally:
            for handle in handles:
                handle.remove()
        last = order[-1] if order else ""
        output = LIMITS.positive_output_size if draft.activation in POSITIVE else 1.0
        ends = {name: draft.branch_ends[id(m.weight)] for name, m in layers.items() if _is_end(draft, m)}
        handles = [
            m.register_forward_hook(
                partial(_correct, corrections, name, ends.get(name, output if name == last else 1.0), draft)
            )
            for name, m in layers.items()
        ]
        try:
            replay()
        finally:
            for handle in handles:
                handle.remove()
    return corrections


@torch.no_grad()
def apply(draft: Draft, corrections: Mapping[str, Correction]) -> None:
    """Change weights and biases by the corrections of :func:`measure`."""
    for name, module in draft.layers().items():
        correction = corrections.get(name)
        if correction is None:
            continue
        target = module.out_proj if isinstance(module, nn.MultiheadAttention) else module
        weight: Tensor = target.weight  # type: ignore[assignment]
        weight.mul_(correction.scale)
        if target.bias is not None and correction.shift is not None:
            bias: Tensor = target.bias  # type: ignore[assignment]
            bias.sub_((correction.shift * correction.scale).to(bias.dtype))


def _is_end(draft: Draft, module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and id(weight) in draft.branch_ends


def _note(order: list[str], name: str, *_: Any) -> None:
    if name in order:
        order.remove(name)
    order.append(name)


def _correct(
    corrections: dict[str, Correction],
    name: str,
    size: float,
    draft: Draft,
    module: nn.Module,
    inputs: object,
    output: Any,
) -> Any:
    """Correct a layer's output; the first use of a layer decides."""
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor) or not first.is_floating_point() or not first.numel():
        return None
    if name not in corrections:
        corrections[name] = _correction(first.detach(), size, draft, module)
    correction = corrections[name]
    shift = 0.0 if correction.shift is None else _broadcast(correction.shift, module, first)
    corrected = ((first.float() - shift) * correction.scale).to(first.dtype)
    return (corrected, *output[1:]) if isinstance(output, tuple) else corrected


def _correction(output: Tensor, size: float, draft: Draft, module: nn.Module) -> Correction:
    values = output.double()
    unit = 1 if isinstance(module, _CONV) else -1
    shift = None
    # A layer that gets a constant only, such as an embedded class, would lose it with its mean.
    if draft.activation in POSITIVE and getattr(module, "bias", None) is not None and values.ndim >= 2:
        flat = values.movedim(unit, -1).flatten(0, -2)
        shift = flat.mean(0)
        centred = flat - shift
        if float(centred.square().mean()) > torch.finfo(torch.float32).eps * float(flat.square().mean()):
            values = centred
        else:
            shift = None
    rms = math.sqrt(float(values.square().mean()))
    scale = size / rms if math.isfinite(rms) and rms > 0 else 1.0
    return Correction(scale, None if shift is None else shift.float())


def _broadcast(shift: Tensor, module: nn.Module, like: Tensor) -> Tensor:
    return shift.view(-1, *[1] * (like.ndim - 2)) if isinstance(module, _CONV) else shift
