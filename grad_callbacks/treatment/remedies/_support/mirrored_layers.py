"""Layers whose second half is the negative of the first, so that a deep rectifier net starts as a linear one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.lsuv import Draft
from grad_callbacks.treatment.remedies._support.weight_fill import can_be_orthogonal, orthogonal

_CONV = nn.modules.conv._ConvNd


@torch.no_grad()
def mirror(draft: Draft, order: Sequence[str], replay: Callable[[], Tensor]) -> bool:
    """Make the layers of a plain stack look linear, so that a deep rectifier net starts as an orthogonal linear one.

    Half of the units are the other half's negatives, and the next layer takes their difference: relu(z) - relu(-z) is
    z, and the same holds for GELU and SiLU. In a deep stack all inputs would else come out alike (Balduzzi et al.
    2017, "The Shattered Gradients Problem", sec. 4.1). A layer whose outputs go on as they are, an autoencoder's code
    say, keeps a unit for each: without an activation between them two such halves would stay each other's negatives,
    and half of the code would be lost for good.

    Args:
        draft: Its linear layers and convolutions are changed in place.
        order: Their names in the order of execution.
        replay: Runs the batch.

    Returns:
        False, and nothing is changed, if a layer does not fit to the one before.
    """
    layers = draft.layers()
    stack = [layers[name] for name in order]
    is_halved = [not passed_on for passed_on in _passed_on(draft, order, replay)] + [False]
    outs = [_sizes(module)[0] for module in stack]
    ins = [_sizes(module)[1] for module in stack]
    is_plain = all(isinstance(module, (nn.Linear, _CONV)) for module in stack) and len(set(stack)) == len(stack)
    if not is_plain or any(out % 2 for out, halved in zip(outs, is_halved, strict=True) if halved):
        return False
    if any(into % out for out, into in zip(outs, ins[1:], strict=False)):
        return False
    for place, module in enumerate(stack):
        weight: Tensor = module.weight  # type: ignore[assignment]
        takes_difference = place > 0 and is_halved[place - 1]
        half = weight[: len(weight) // 2] if is_halved[place] else weight
        half = half.flatten(2) if weight.ndim > 2 else half.unsqueeze(2)
        half = half[:, : half.shape[1] // 2] if takes_difference else half
        seed = half.flatten(1)
        whole = (orthogonal(seed) if can_be_orthogonal(seed) else seed / seed.norm(dim=1).mean()).view_as(half)
        whole = torch.cat([whole, -whole], dim=1) if takes_difference else whole
        whole = torch.cat([whole, -whole]) if is_halved[place] else whole
        weight.copy_(whole.view_as(weight))
    return True


def _passed_on(draft: Draft, order: Sequence[str], replay: Callable[[], Tensor]) -> list[bool]:
    """Whether the next layer takes in what each layer but the last gives out, the same numbers."""
    ins: dict[str, Tensor] = {}
    outs: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if name not in outs and inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            # Copies: an activation may work in place.
            ins[name], outs[name] = inputs[0].detach().clone(), output.detach().clone()

    layers = draft.layers()
    with undisturbed(draft.model):
        handles = [layers[name].register_forward_hook(partial(note, name)) for name in order]
        try:
            replay()
        finally:
            for handle in handles:
                handle.remove()
    return [name in outs and other in ins and _is_same(outs[name], ins[other]) for name, other in pairwise(order)]


def _is_same(output: Tensor, taken: Tensor) -> bool:
    return output.numel() == taken.numel() and torch.equal(output.flatten(), taken.flatten())


def _sizes(module: nn.Module) -> tuple[int, int]:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.shape[0], weight.shape[1]
