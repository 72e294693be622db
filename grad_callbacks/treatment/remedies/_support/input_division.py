"""Divide inputs of modules, and find the modules that take a tensor in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.input_scale import float_tensors, is_known, size_of
from grad_callbacks.treatment.remedies._support.replayed_loss import can_be_replayed
from grad_callbacks.treatment.step.run_state import RunState


@dataclass(frozen=True)
class Change:
    """An input of a module that is in another unit than before.

    Attributes:
        module: The module's name; "" for the whole model.
        argument: The input's place among the arguments, or its name.
        divisor: How many times as large it is.
        usual: Its size before.
        in_place: The batch itself is divided, since the loss uses it too.
    """

    module: str
    argument: int | str
    divisor: float
    usual: float
    in_place: bool = False

    @property
    def limit(self) -> float:
        """The size above which a batch counts as one in the other unit."""
        return math.sqrt(self.divisor) * self.usual


class Divide:
    """The hook: divides an input of a module where it is large, without waiting for the device.

    Args:
        change: What is divided, and by what.
    """

    def __init__(self, change: Change) -> None:
        self.change = change
        self._flag: Tensor | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        inputs = _by_argument(args, kwargs)
        value = inputs.get(self.change.argument)
        if value is None or not is_known(value):
            return None
        is_large = size_of(value) > self.change.limit
        self._flag = is_large if self._flag is None else self._flag | is_large.to(self._flag.device)
        wide = value.to(torch.promote_types(value.dtype, torch.float32))  # float16 has no room for large divisors
        divided = (wide / torch.where(is_large, self.change.divisor, 1.0)).to(value.dtype)
        inputs[self.change.argument] = value.detach().copy_(divided) if self.change.in_place else divided
        return tuple(inputs[place] for place in range(len(args))), {name: inputs[name] for name in kwargs}

    def take_flag(self) -> Tensor | None:
        """Whether anything was divided since the last call; None if there was no input."""
        flag, self._flag = self._flag, None
        return flag


def takers(run_state: RunState, changed: Mapping[int, Change]) -> list[Change] | None:
    """Run the batch again and find the outermost modules that take the changed tensors in; None if there are none.

    Args:
        run_state: Has model and batch.
        changed: Which of the batch's tensors are too large, by their place.
    """
    if not can_be_replayed(run_state):
        return None
    assert run_state.batch.replay is not None
    tensors = float_tensors(run_state.batch.content)
    wanted = [(tensors[place], change) for place, change in changed.items()]
    found: dict[tuple[str, int | str], Change] = {}

    def look(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for argument, value in _by_argument(args, kwargs).items():
            for tensor, change in wanted:
                if is_known(value) and is_same(value, tensor, change.divisor * change.usual):
                    found[name, argument] = replace(change, module=name, argument=argument)

    with suppress(Exception), ExitStack() as stack:  # the user's code
        for name, module in run_state.model.named_modules():
            # Before the hooks that are there already: they may replace the tensor.
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: look(name, args, kwargs), prepend=True, with_kwargs=True
            )
            stack.callback(handle.remove)
        with undisturbed(run_state.model):
            run_state.batch.replay()
    names = {name for name, _ in found}
    return [change for change in found.values() if not any(_lies_in(change.module, other) for other in names)] or None


def _by_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[int | str, Any]:
    return dict(enumerate(args)) | dict(kwargs)


def is_same(value: Tensor, tensor: Tensor, size: float) -> bool:
    """True for the tensor itself, a view of all of it, or a copy in another order or type."""
    if value.numel() != tensor.numel():
        return False
    is_view = value.data_ptr() == tensor.data_ptr() and value.dtype == tensor.dtype
    return is_view or math.isclose(float(size_of(value)), size, rel_tol=torch.finfo(torch.float16).eps)


def _lies_in(name: str, other: str) -> bool:
    return name != other and (not other or name.startswith(f"{other}."))
