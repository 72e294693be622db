"""Recognise models compiled by ``torch.compile``."""

from __future__ import annotations

from torch import nn

WRAPPED_NAME = "_orig_mod"  # the attribute under which torch.compile's wrapper keeps a module, also part of its name


def is_compiled(module: nn.Module) -> bool:
    """True for the wrapper that ``torch.compile(module)`` returns."""
    return hasattr(module, WRAPPED_NAME)


def has_compiled_part(model: nn.Module, in_place: bool = False) -> bool:
    """True if a model or one of its modules was compiled: hooks on its modules see nothing, or compile it again.

    Args:
        model: The model.
        in_place: Also count modules that ``module.compile()`` has compiled, which have no wrapper.
    """
    return any(is_compiled(module) or (in_place and _was_compiled_in_place(module)) for module in model.modules())


def _was_compiled_in_place(module: nn.Module) -> bool:
    return bool(module._compiled_call_impl)
