"""Outputs in evaluation mode, for modules whose output is not finite in training only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.batch import tensors_in
from grad_callbacks.measurement.replay import undisturbed


@dataclass(frozen=True)
class UndefinedOutputThresholds(Thresholds):
    """The numbers of :func:`undefined_in_training` and of the masks of the forward pass."""

    overflowing: float = threshold(
        1e10,
        "activation above which an overflow is about to happen, so that no undefined operation is to blame",
        unit="absolute value",
        source="not measured",
    )


LIMITS = UndefinedOutputThresholds()

# What user code may raise; checkpointing ends a forward pass by an exception of its own, which must pass.
_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def in_evaluation(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Any:
    """Call a module that is in training mode once more, in evaluation mode.

    Returns:
        Its output; None if it fails, or its output cannot replace ``output``: it must have the same structure and
        shapes, and require a gradient where that does.
    """
    instead = None
    module.training = False
    try:
        with suppress(*_ERRORS):
            instead = module(*args, **kwargs)
    finally:
        module.training = True
    return instead if _signature(instead) == _signature(output) else None


def undefined_in_training(model: nn.Module, replay: Callable[[], Tensor] | None) -> list[str]:
    """Run a batch again and find the modules whose output has NaN or infinities in training, but not in evaluation.

    An example is noise that takes the log of zero. The output of each module that is found is replaced at once, so that
    the next one is no consequence of it. Only modules without submodules are looked at: in others a second call would
    move running statistics and draw random numbers. Those with hooks before their forward pass are left out, since the
    hooks would run twice. The model is left as it was.

    Args:
        model: The model.
        replay: Computes the loss of the batch.

    Returns:
        The modules' names in their order; empty if there are none, or the model cannot be run.
    """
    if replay is None:
        return []
    found: dict[str, None] = {}
    handles = [
        module.register_forward_hook(partial(_look, found, name), with_kwargs=True)
        for name, module in model.named_modules()
        if next(module.children(), None) is None and not module._forward_pre_hooks
    ]
    try:
        with undisturbed(model):
            replay()
    except Exception:  # the user's code
        return []
    finally:
        for handle in handles:
            handle.remove()
    return list(found)


def _look(
    found: dict[str, None], name: str, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
) -> Any:
    if not module.training or all(map(_is_finite, tensors_in(output))) or any(map(_overflows, tensors_in(output))):
        return output
    versions = [tensor._version for tensor in tensors_in([args, kwargs])]
    instead = in_evaluation(module, args, kwargs, output)
    changes_its_input = versions != [tensor._version for tensor in tensors_in([args, kwargs])]
    if instead is None or changes_its_input or not all(map(_is_finite, tensors_in(instead))):
        return output
    found[name] = None
    return instead


def _is_finite(tensor: Tensor) -> bool:
    return tensor.layout is not torch.strided or bool(torch.isfinite(tensor).all())


def _overflows(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided:
        return False
    return tensor.dtype is torch.float16 or bool((tensor.detach()[torch.isfinite(tensor)] > LIMITS.overflowing).any())


def _signature(nested: Any) -> Any:
    """What two outputs must have in common; one may be in another precision."""
    leaves, structure = tree_flatten(nested)
    return structure, [
        (leaf.shape, leaf.is_floating_point(), leaf.requires_grad) if isinstance(leaf, Tensor) else type(leaf)
        for leaf in leaves
    ]
