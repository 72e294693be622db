"""Averages of the weights, and other copies of them, that stand beside the weights that an optimizer moves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.treatment.step.optimizer_state import LIMITS as MEMORY

_OTHERS = (torch.optim.Optimizer, DataLoader, Dataset, str, bytes)
_PLAIN = frozenset((int, float, bool, complex, str, bytes, type(None)))  # settings, of which a model has many
_CONTAINERS = frozenset((dict, OrderedDict, list, tuple, set))  # empty ones, of which a model has many, too
_SKIPPED = ("trainer", "_trainer", "fabric", "_fabric", "_parameters", "_buffers", "_modules")

Signature = tuple[torch.Size, ...]


@dataclass(frozen=True)
class AveragesThresholds(Thresholds):
    """How far averages are looked for."""

    longest: int = threshold(
        4,
        "length up to which lists and dictionaries are looked through",
        unit="x the tensors of the model",
        source="not measured",
    )
    samples: int = threshold(
        64,
        "entries of a tensor by which it is seen to move: an average moves in all of them",
        unit="entries",
        source="not measured",
    )


LIMITS = AveragesThresholds()


@dataclass(frozen=True)
class Average:
    """Tensors that look like a copy of weights.

    Attributes:
        name: Where they are.
        tensors: The tensors, in their owner's order.
        counts: The number of models that were averaged, if there is such a tensor.
    """

    name: str
    tensors: list[Tensor]
    counts: list[Tensor]

    @property
    def everything(self) -> list[Tensor]:
        """Tensors and counts."""
        return [*self.tensors, *self.counts]


class Averages:
    """Finds averages: of ``torch.optim.swa_utils``, deep copies, dictionaries and lists of tensors.

    Whatever has the shapes of the model, of one of its parts or of what the optimizer trains is one; whether it moves
    is for the caller to see.

    Args:
        model: Is trained; may hold averages as parts or in attributes.
        holders: Other objects that may hold some, such as callbacks.
        trained: Returns the ids of the parameters that some optimizer moves.
    """

    def __init__(self, model: nn.Module, holders: Sequence[object], trained: Callable[[], Collection[int]]) -> None:
        self._model, self._holders, self._trained = model, holders, trained

    def find(self) -> list[Average]:
        """Return all averages that there are now."""
        trained = self._trained()
        tensors = list(_tensors_of(self._model))
        own = {id(t) for t in tensors if id(t) in trained or t.grad is not None}
        search = _Search(lambda: self._signatures(trained), own)
        modules = list(self._model.modules())
        if len(own) < len(tensors):  # else no module is one
            for name, module in self._model.named_modules():
                if module is not self._model:
                    search.look_at_module(name or type(module).__name__, module)
        parts = set(map(id, modules))
        for root in (*modules, *self._holders):
            if id(root) in parts or not isinstance(root, nn.Module):
                search.descend(type(root).__name__, root)
            else:
                search.look_at_module(type(root).__name__, root)
        return search.found

    def begin_again(self, average: Average) -> bool:
        """Set an average to the present weights; False if it is not clear which of them it averages."""
        shapes = [tensor.shape for tensor in average.tensors]
        for source in self._sources(self._trained()):
            size = sum(tensor.numel() for tensor in source)
            if shapes == [tensor.shape for tensor in source] or shapes == [torch.Size([size])]:
                with torch.no_grad():
                    new_values = source if len(shapes) == len(source) else [torch.cat([t.flatten() for t in source])]
                    for mine, new in zip(average.tensors, new_values, strict=True):
                        mine.detach().copy_(new)
                    for count in average.counts:
                        count.zero_()
                return True
        return False

    def _signatures(self, trained: Collection[int]) -> set[Signature]:
        known = {signature for sequence in self._sources(trained) if (signature := _signature(sequence))}
        return known | {(torch.Size([sum(size.numel() for size in signature)]),) for signature in known}  # one vector

    def _sources(self, trained: Collection[int]) -> Iterator[Sequence[Tensor]]:
        for module in self._model.modules():
            parameters = list(module.parameters())
            if any(id(parameter) in trained for parameter in parameters):
                yield [*parameters, *(b for b in module.buffers() if b.is_floating_point())]
                yield parameters
                named = module.state_dict(keep_vars=True).values()
                yield [t for t in named if isinstance(t, Tensor) and t.is_floating_point()]
        yield [p for p in self._model.parameters() if id(p) in trained]


class _Search:
    def __init__(self, signatures: Callable[[], Collection[Signature]], own: Collection[int]) -> None:
        self.found: list[Average] = []
        self._signatures, self._own = signatures, own
        self._seen: set[int] = set()

    @cached_property
    def _known(self) -> Collection[Signature]:
        """What an average may look like; found out only once something might be one."""
        return self._signatures()

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._known), default=0)

    def look_at_module(self, name: str, module: nn.Module, count: object = None) -> None:
        """Take a module for an average if none of its tensors is trained and it has the shapes of one."""
        if any(id(t) in self._own for t in module.parameters()):
            return
        floats = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
        if floats:
            count = getattr(module, "n_averaged", count)
            self._offer(name, floats, count) or self._offer(name, list(module.parameters()), count)

    def descend(self, name: str, value: Any, depth: int = 0, count: object = None) -> None:
        """Look at attributes and entries; ``count`` is how many models were averaged, where that stands beside."""
        if id(value) in self._seen or depth > MEMORY.deepest or isinstance(value, _OTHERS) or _is_foreign(value):
            return
        if isinstance(value, Tensor):
            if value.dim() == 1 and value.is_floating_point() and id(value) not in self._own:
                self._offer(name, [value], count)  # all weights in one vector
            return
        self._seen.add(id(value))
        if isinstance(value, nn.Module) and depth:
            self.look_at_module(name, value, count)
        elif isinstance(value, (Mapping, list, tuple)):
            self._look_into(name, value, depth)
        elif hasattr(value, "__dict__"):
            for key, item in list(vars(value).items()):
                if type(item) not in _PLAIN and key not in _SKIPPED and (type(item) not in _CONTAINERS or item):
                    self.descend(f"{name}.{key}", item, depth + 1, vars(value).get("n_averaged"))

    def _look_into(self, name: str, value: Mapping[Any, Any] | Sequence[Any], depth: int) -> None:
        items = list(value.values() if isinstance(value, Mapping) else value)
        if len(items) > LIMITS.longest:  # else no bound is shorter
            items = items[: LIMITS.longest * self._longest]
        floats = [item for item in items if isinstance(item, Tensor) and item.is_floating_point()]
        if floats and not any(id(t) in self._own for t in floats):
            self._offer(name, floats, None)
        for place, item in enumerate(items):
            self.descend(f"{name}[{place}]", item, depth + 1)

    def _offer(self, name: str, tensors: list[Tensor], count: object) -> bool:
        if any(id(tensor) in self._seen for tensor in tensors) or _signature(tensors) not in self._known:
            return False
        self._seen.update(map(id, tensors))
        self.found.append(Average(name, tensors, [count] if isinstance(count, Tensor) else []))
        return True


def _is_foreign(value: object) -> bool:
    """True for functions and classes, which hold no tensors, and for this package's callbacks, which hold snapshots."""
    is_code = isinstance(value, type) or (callable(value) and not isinstance(value, nn.Module))
    cls: type = type(value)
    return is_code or _is_ours(cls)


@lru_cache
def _is_ours(cls: type) -> bool:
    return any(base.__module__.startswith("grad_callbacks.") for base in cls.__mro__)


def samples(average: Average) -> list[Tensor]:
    """A few entries of each tensor, by which to see that it has moved."""
    return [_sample(tensor) for tensor in average.tensors]


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // LIMITS.samples)].double()


def _signature(tensors: Iterable[Tensor]) -> Signature:
    return tuple(sorted(tensor.shape for tensor in tensors))


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())
