"""Leaving out the optimizer's own step where the host has decided to skip it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import chain
from types import MethodType
from typing import Any

import torch
from torch.optim import optimizer as hooks

_OF_NUMPY = (torch.float32, torch.float64)  # whose first entry NumPy reads in a fraction of the time


class _Skipped(Exception):  # no error: it leaves a step that has begun, from within its closure
    """Carries what the closure has returned."""


class StepGate:
    """Stands in front of ``optimizer.step`` and does not call it for a step that is skipped.

    Without gradients most optimizers do nothing, yet some count the step, decay the weights, or raise. Where a closure
    is evaluated first, as Lightning's are, the step is left right behind it; unless the optimizer has moved the weights
    before (sharpness-aware ones), since only its own code moves them back. Hooks of the step run as always.

    Args:
        optimizer: Its ``step`` is replaced until :meth:`remove`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._is_shut = False
        self._is_removed = False
        self._own = vars(optimizer).get("step")  # a scheduler's, for instance
        behind = optimizer.step

        @wraps(behind.__func__ if isinstance(behind, MethodType) else behind)
        def step(owner: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
            if owner is not self._optimizer:  # a copy
                return type(owner).step(owner, *args, **kwargs)
            return behind(*args, **kwargs) if self._is_removed else self._step(behind, args, kwargs)

        self._step_in_front = MethodType(step, optimizer)
        optimizer.step = self._step_in_front  # type: ignore[method-assign]

    def shut(self) -> None:
        """Leave out the step under way, or else the next one."""
        self._is_shut = True

    def open(self) -> None:
        """Let the next step through: another one has begun."""
        self._is_shut = False

    def remove(self) -> None:
        """Put back what was there before; where somebody has wrapped ours since, let everything through."""
        self._is_removed = True
        if vars(self._optimizer).get("step") is self._step_in_front:
            if self._own is None:
                del self._optimizer.step
            else:
                self._optimizer.step = self._own  # type: ignore[method-assign]

    def _step(self, behind: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = args[0] if args else kwargs.get("closure")
        if closure is None:
            if not self._is_shut:
                return behind(*args, **kwargs)
            self._call_hooks(hooks._global_optimizer_pre_hooks, self._optimizer._optimizer_step_pre_hooks, args, kwargs)
            return self._skipped(args, kwargs)
        before = _marks(self._optimizer)

        def evaluate() -> Any:
            loss = closure()
            if self._is_shut and _marks(self._optimizer) == before:
                raise _Skipped(loss)
            return loss

        changed = (evaluate, *args[1:]) if args else args
        try:
            return behind(*changed, **(kwargs if args else {**kwargs, "closure": evaluate}))
        except _Skipped as skipped:
            self._skipped(args, kwargs)
            return skipped.args[0]

    def _skipped(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._is_shut = False
        self._optimizer._opt_called = True  # type: ignore[attr-defined]  # a scheduler would warn that it was not
        self._call_hooks(self._optimizer._optimizer_step_post_hooks, hooks._global_optimizer_post_hooks, args, kwargs)

    def _call_hooks(self, first: Any, second: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for hook in chain(list(first.values()), list(second.values())):
            hook(self._optimizer, args, kwargs)


def _marks(optimizer: torch.optim.Optimizer) -> list[Any]:
    """What differs once the weights have been moved; the host does not wait for an accelerator."""
    groups = [group["params"] for group in optimizer.param_groups if group["params"]]
    ends = (groups[0][0], groups[-1][-1]) if groups else ()
    return [(part._version, _first_entry(part)) for part in ends]


def _first_entry(part: torch.Tensor) -> str:
    values = part.detach()
    is_here = type(values) is torch.Tensor and values.device.type == "cpu" and values.numel() > 0
    if is_here and values.dtype in _OF_NUMPY and values.layout == torch.strided:
        return repr(values.numpy().item(0))
    return repr(values.reshape(-1)[0].item()) if is_here else ""
