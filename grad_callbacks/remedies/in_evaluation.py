"""What modules make of their inputs in evaluation, for those that make undefined numbers in training only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from grad_callbacks.diagnosis import undisturbed


def in_evaluation(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a module that is in training as in evaluation. What it consists of goes on training."""
    module.training = False
    try:
        return module(*args, **kwargs)
    finally:
        module.training = True


def is_alike(output: Any, instead: Any) -> bool:
    """True if one output can take the other's place, and is learned through like it."""
    return bool(_signature(output) == _signature(instead))


def undefined_in_training(model: nn.Module, replay: Callable[[], Tensor] | None) -> list[str]:
    """Run a batch again and find the modules whose output has NaN or infinities in training, but not in evaluation.

    Such is a noise that takes the log of zero, or a layer drop that divides by a share of zero. Each gives what it
    gives in evaluation at once, so that the next to be found is no consequence of it. Leaves no trace.

    Args:
        model: The model.
        replay: Computes the loss of the batch.

    Returns:
        The modules' names in their order; empty if there are none, or the loss would not be finite even so.
    """
    if replay is None:
        return []
    found: dict[str, None] = {}
    handles = [
        module.register_forward_hook(partial(_look, found, name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        with undisturbed(model):
            is_finite = math.isfinite(float(replay()))
    except Exception:  # the user's code
        is_finite = False
    finally:
        for handle in handles:
            handle.remove()
    return list(found) if is_finite else []


def _look(
    found: dict[str, None], name: str, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
) -> Any:
    if not module.training or _is_finite(output):
        return output
    instead = in_evaluation(module, args, kwargs)
    if not _is_finite(instead) or not is_alike(output, instead):
        return output
    found[name] = None
    return instead


def _is_finite(nested: Any) -> bool:
    return all(bool(torch.isfinite(leaf).all()) for leaf in tree_flatten(nested)[0] if isinstance(leaf, Tensor))


def _signature(nested: Any) -> Any:
    leaves, structure = tree_flatten(nested)
    return structure, [
        (leaf.shape, leaf.dtype, leaf.requires_grad) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves
    ]
