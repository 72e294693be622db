"""All that an optimizer remembers between its steps, of any type."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import is_
from typing import Any

import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.treatment.step.packing import Fetch, Node, Packer

_OF_SCHEDULERS = ("params", "lr", "initial_lr")  # parameters are kept elsewhere, rates are a scheduler's
_PLAIN = frozenset((int, float, complex, str, bool, type(None)))  # never changed in place
_OF_TORCH = re.compile(r"state|param_groups|defaults|step|found_inf|grad_scale|_optimizer_\w+|_opt_called|_step_count")


@dataclass(frozen=True)
class OptimizerMemoryThresholds(Thresholds):
    """How far an optimizer's own entries are looked through at each step, which must cost next to nothing."""

    deepest: int = threshold(4, "containers and objects within others", unit="levels", source="not measured")
    longest: int = threshold(64, "length of a container", unit="entries", source="not measured")


LIMITS = OptimizerMemoryThresholds()


class OptimizerMemory:
    """What an optimizer changes in its own steps: its state, and such entries of groups and attributes as counters.

    A group also holds what schedulers and users set (rates, momenta, decay). What differs after a step from what it was
    before is the optimizer's own, and only that is restored.

    Args:
        optimizer: Is followed by hooks until :meth:`close`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._own: set[str] = set()  # names of group entries and attributes that steps have changed
        self._values: list[Any] = []  # all entries, when it was last found out which a step may change
        self._found: dict[str, Any] = {}  # these, by name
        self._mutable: list[tuple[str, Any]] = []  # those of them that may change in place
        self._before: list[Any] | None = None  # during a step: marks of the mutable ones before it
        self._handles = [
            optimizer.register_step_pre_hook(self._enter),
            optimizer.register_step_post_hook(self._leave),
        ]

    def of(self, optimizer: torch.optim.Optimizer) -> OptimizerMemory:
        """The same knowledge about another optimizer of the same class, which is not followed."""
        made = object.__new__(OptimizerMemory)
        made._optimizer, made._own, made._before, made._handles = optimizer, self._own, None, []
        return made

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def pack(self, packer: Packer) -> PackedOptimizer:
        """Take apart what the optimizer remembers now."""
        return PackedOptimizer(self._optimizer, packer)

    def restore(self, packed: PackedOptimizer, fetch: Fetch) -> None:
        """Restore what was taken apart."""
        packed.restore(self._optimizer, self._own, fetch)

    def _enter(self, *_: Any) -> None:
        if not self._is_as_found():
            self._find()
        self._before = [_mark(value) for _, value in self._mutable]

    def _leave(self, *_: Any) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        if self._is_as_found() and [_mark(value) for _, value in self._mutable] == before:
            return  # nearly always
        marks = {name: _mark(value) for name, value in self._found.items()}
        marks |= {name: mark for (name, _), mark in zip(self._mutable, before, strict=True)}
        now = _watched(self._optimizer)
        self._own.update(name for name, value in now.items() if marks.get(name, self) != _mark(value))

    def _find(self) -> None:
        self._values, self._found = _values(self._optimizer), _watched(self._optimizer)
        self._mutable = [(name, value) for name, value in self._found.items() if type(value) not in _PLAIN]
        if any(_inner(self._optimizer)):
            self._values = []  # whose entries must be looked at, too

    def _is_as_found(self) -> bool:
        """True if all entries are the very objects that they were; those of mutable types may have changed."""
        now = _values(self._optimizer)
        return len(now) == len(self._values) and all(map(is_, now, self._values))


class PackedOptimizer:
    """What an optimizer remembers, taken apart; wrapped optimizers, such as those of Lookahead, with it.

    Args:
        optimizer: Stays as it is.
        packer: Takes apart.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, packer: Packer) -> None:
        self.state: list[tuple[Any, Node]] = [(key, packer.pack(value)) for key, value in optimizer.state.items()]
        self._groups = [
            {key: packer.pack(value) for key, value in group.items() if key not in _OF_SCHEDULERS}
            for group in optimizer.param_groups
        ]
        self._attributes = {name: packer.pack(value) for name, value in _attributes(optimizer)}
        self._inner = {name: PackedOptimizer(inner, packer) for name, inner in _inner(optimizer)}

    def restore(self, optimizer: torch.optim.Optimizer, own: set[str], fetch: Fetch) -> None:
        """Restore it.

        Args:
            optimizer: The optimizer, or another one of its class for the same parameters.
            own: Names of group entries and attributes that are not somebody else's.
            fetch: Gives the tensors.
        """
        kept = {key for key, _ in self.state}
        for key in [key for key in optimizer.state if key not in kept]:
            del optimizer.state[key]
        for parameter, node in self.state:
            optimizer.state[parameter] = node.restore(optimizer.state.get(parameter), fetch)
        for group, nodes in zip(optimizer.param_groups, self._groups, strict=False):
            _restore_entries(group, own, nodes, fetch)
        _restore_entries(vars(optimizer), own, self._attributes, fetch)
        for name, inner in self._inner.items():
            if isinstance(mine := vars(optimizer).get(name), torch.optim.Optimizer):
                inner.restore(mine, own, fetch)


def _restore_entries(place: dict[str, Any], own: set[str], nodes: Mapping[str, Node], fetch: Fetch) -> None:
    for name in own & nodes.keys():
        place[name] = nodes[name].restore(place.get(name), fetch)


def _attributes(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    for name, value in vars(optimizer).items():
        if not (_is_of_torch(name) or callable(value) or isinstance(value, torch.optim.Optimizer)):
            yield name, value


@lru_cache
def _is_of_torch(name: str) -> bool:
    return _OF_TORCH.fullmatch(name) is not None


def _inner(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.optim.Optimizer]]:
    yield from ((name, it) for name, it in vars(optimizer).items() if isinstance(it, torch.optim.Optimizer))


def _watched(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a step may change: the entries of the first group, and attributes."""
    found: dict[str, Any] = {}
    for each in [optimizer, *(inner for _, inner in _inner(optimizer))]:
        for group in each.param_groups[:1]:
            found |= {key: value for key, value in group.items() if key not in _OF_SCHEDULERS}
        found |= _attributes(each)
    return found


def _values(optimizer: torch.optim.Optimizer) -> list[Any]:
    """All entries of the first group but a scheduler's, and all attributes; the least that can be looked at."""
    values = list(vars(optimizer).values())
    for group in optimizer.param_groups[:1]:
        values += [value for key, value in group.items() if key not in _OF_SCHEDULERS]
    return values


def _mark(value: Any, depth: int = 0) -> Any:
    """What differs once a value has changed."""
    if isinstance(value, (int, float, complex, str, bool)) or value is None:
        return value
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, torch.Generator):
        return value.initial_seed(), None if value.device.type != "cpu" else hash(value.get_state().numpy().tobytes())
    if depth < LIMITS.deepest and isinstance(value, (list, tuple, deque, Mapping)) and len(value) <= LIMITS.longest:
        items = value.values() if isinstance(value, Mapping) else value
        return len(value), tuple(_mark(item, depth + 1) for item in items)
    if depth < LIMITS.deepest and hasattr(value, "__dict__"):
        return id(value), tuple(_mark(item, depth + 1) for item in vars(value).values())
    return id(value)
