"""Find operations whose derivative is not finite, and mask it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks.measurement.replay import undisturbed

# Parts of names of operations that add up over weights or activations: they are not finite only because their inputs
# were not. To mask them would remove a weight's whole gradient. A compiled operation is many in one.
_SUMS: tuple[str, ...] = (
    "mm",
    "mv",
    "conv",
    "linear",
    "attention",
    "batchnorm",
    "layernorm",
    "groupnorm",
    "rnn",
    "lstm",
    "gru",
    "embed",
    "compiled",
)


def undefined_operations(
    model: nn.Module, replay: Callable[[], Tensor] | None, needs_finite_loss: bool = False
) -> list[str] | None:
    """Run a batch again and name the operations whose derivative is not finite, though what came to them was.

    The model is left as it was.

    Args:
        model: The model.
        replay: Computes the loss of the batch.
        needs_finite_loss: Masking does not help if the loss is not finite.

    Returns:
        The names of autograd's nodes, an empty list if all is finite; None if masking them would not help.
    """
    if replay is None:
        return None
    names: dict[str, None] = {}
    try:
        with undisturbed(model):
            loss = replay()
            for node in nodes(loss):
                node.register_hook(partial(_look, names, node.name()))
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    except Exception:  # the user's code
        return None
    known = [gradient for gradient in gradients if gradient is not None]
    is_learning = any(bool(gradient.any()) for gradient in known)
    if needs_finite_loss and not bool(torch.isfinite(loss).all()):
        return None
    if not is_learning or any(part in name.lower() for name in names for part in _SUMS):
        return None
    return list(names)


def nodes(loss: Tensor) -> Iterator[Any]:
    """Walk over the operations in the graph of a loss, each once; its leaves outlive the graph, and so would hooks."""
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = {None}
    while waiting:
        node = waiting.pop()
        if node not in seen and node.next_functions:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]


def mask(masked: list[Tensor], grad_inputs: tuple[Any, ...], grad_outputs: object) -> tuple[Any, ...]:
    """Replace entries of derivatives that are not finite by zero; append to ``masked`` whether there were any.

    The flags stay on the device.
    """
    kept = []
    for gradient in grad_inputs:
        if not isinstance(gradient, Tensor) or gradient.layout is not torch.strided:
            kept.append(gradient)
            continue
        is_good = torch.isfinite(gradient)
        masked.append(~is_good.all())
        kept.append(gradient.where(is_good, torch.zeros_like(gradient)))
    return tuple(kept)


def _look(names: dict[str, None], name: str, grad_inputs: tuple[Any, ...], grad_outputs: object) -> tuple[Any, ...]:
    """Mask a node's derivative, and note its name if that has changed anything."""
    flags: list[Tensor] = []
    kept = mask(flags, grad_inputs, grad_outputs)
    if any(flags):
        names[name] = None
    return kept
