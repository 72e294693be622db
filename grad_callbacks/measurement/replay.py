"""Run a batch again, with all side effects on the model undone."""

from __future__ import annotations

import copy
import random
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grad_callbacks._utils.compiled import eagerly
from grad_callbacks._utils.thresholds import Thresholds, threshold

_PARTS = ("_parameters", "_modules")  # dicts of a module whose entries are put back one by one


@dataclass(frozen=True)
class ReplayThresholds(Thresholds):
    """Thresholds of what is copied before a batch is run again."""

    weights: int = threshold(
        2**30,
        "weights up to this size are copied; a forward pass is trusted not to write to larger ones",
        unit="bytes",
        source="not measured",
    )
    entries: int = threshold(
        10_000,
        "the entries of a longer container are not copied, only the container itself",
        unit="entries",
        source="not measured",
    )


LIMITS = ReplayThresholds()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Undo what happens inside to a model, its gradients and the random number generators.

    Inside, the model works on copies: of its buffers, of tensors, containers and random generators in its
    attributes, and of weights up to 1 GiB. Afterwards it gets the originals back, unchanged to the bit, also for
    autograd graphs that hold them. The gradients are put aside, and compiled parts run as they were written. Not undone
    are effects outside of the model: prints, files, changes that forward makes to objects of other classes.
    """
    originals = _Originals(model)
    states = _random_states()
    try:
        with torch.enable_grad(), eagerly(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            originals.replace_by_copies()
            yield
    finally:
        originals.restore()
        _set_random_states(states)


class _Originals:
    """All that belongs to a model."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._attributes = [dict(module.__dict__) for module in self._modules]
        self._parts = [[dict(module.__dict__[part]) for part in _PARTS] for module in self._modules]
        self._parameters = [(p, p.data, p.grad, p.requires_grad) for p in model.parameters()]

    def replace_by_copies(self) -> None:
        """Make the model work on copies."""
        memo: dict[int, Any] = {}
        for module in self._modules:
            for name, value in list(module.__dict__.items()):
                if name not in _PARTS and "hook" not in name:
                    module.__dict__[name] = _copy(value, memo)
        are_small = sum(data.numel() * data.element_size() for _, data, _, _ in self._parameters) <= LIMITS.weights
        for parameter, data, _, _ in self._parameters:
            parameter.grad = None
            if are_small:
                parameter.data = data.clone()

    def restore(self) -> None:
        """Give the model its own parts back."""
        for module, attributes, parts in zip(self._modules, self._attributes, self._parts, strict=True):
            for name in set(module.__dict__) - set(attributes):
                del module.__dict__[name]
            module.__dict__.update(attributes)
            for part, content in zip(_PARTS, parts, strict=True):
                module.__dict__[part].clear()
                module.__dict__[part].update(content)
        for parameter, data, gradient, requires_grad in self._parameters:
            parameter.data = data
            parameter.grad = gradient
            parameter.requires_grad_(requires_grad)


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of tensors, containers and random generators; anything else is returned as it is."""
    if id(value) in memo:
        return memo[id(value)]
    made: Any = value
    if isinstance(value, Tensor):
        made = value if value.requires_grad else value.clone()
    elif isinstance(value, torch.Generator):
        made = torch.Generator(value.device)
        made.set_state(value.get_state())
    elif isinstance(value, (random.Random, np.random.Generator, np.random.RandomState)):
        made = copy.deepcopy(value)
    elif isinstance(value, np.ndarray):
        made = value.copy()
    elif type(value) is tuple:
        made = tuple(_copy(entry, memo) for entry in value) if len(value) <= LIMITS.entries else value
    elif isinstance(value, (list, dict, set, deque)):
        made = copy.copy(value)
        memo[id(value)] = made  # before its entries: it may hold itself
        if len(value) <= LIMITS.entries and not isinstance(value, set):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            for place, entry in list(entries):
                made[place] = _copy(entry, memo)
    memo[id(value)] = made
    return made


def _random_states() -> tuple[Any, ...]:
    is_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_cuda = torch.cuda.get_rng_state_all() if is_used else None
    return torch.get_rng_state(), on_cuda, np.random.get_state(), random.getstate()  # noqa: NPY002  # the user's


def _set_random_states(states: tuple[Any, ...]) -> None:
    on_cpu, on_cuda, of_numpy, of_python = states
    torch.set_rng_state(on_cpu)
    if on_cuda is not None:
        torch.cuda.set_rng_state_all(on_cuda)
    np.random.set_state(of_numpy)  # noqa: NPY002
    random.setstate(of_python)
