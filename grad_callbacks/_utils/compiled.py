"""Recognise models compiled by ``torch.compile``, and run them as if they were not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

WRAPPED_NAME = "_orig_mod"  # the attribute under which torch.compile's wrapper keeps a module, also part of its name


_HAS_STANCES = hasattr(torch.compiler, "set_stance")


def is_compiled(module: nn.Module) -> bool:
    """True for the wrapper that ``torch.compile(module)`` returns."""
    return hasattr(module, WRAPPED_NAME)


def has_compiled_part(model: nn.Module, in_place: bool = False) -> bool:
    """True if a model or one of its modules was compiled: hooks on its modules see nothing, or compile it again.

    Args:
        model: The model.
        in_place: Also count what has no wrapper: modules that ``module.compile()`` has compiled, and a
            LightningModule that was compiled as a whole.
    """
    if in_place and getattr(model, "_compiler_ctx", None) is not None:  # a whole LightningModule
        return True
    return any(is_compiled(module) or (in_place and _was_compiled_in_place(module)) for module in model.modules())


def can_run_eagerly(model: nn.Module) -> bool:
    """True if hooks on its modules see what happens inside :func:`eagerly`: always from torch 2.6 on."""
    return _HAS_STANCES or not has_compiled_part(model)


def eagerly() -> AbstractContextManager[object]:
    """Inside, compiled models run as they were written, and nothing is compiled again because of hooks."""
    return torch.compiler.set_stance("force_eager") if _HAS_STANCES else nullcontext()


def _was_compiled_in_place(module: nn.Module) -> bool:
    return bool(module._compiled_call_impl)
