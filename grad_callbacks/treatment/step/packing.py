"""Nested values with tensors in them: taken apart into a plan and a list of tensors, and restored in place."""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_AS_THEY_ARE = (ModuleType, nn.Module, Enum)  # and what can be called
_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)

Fetch = Callable[[int], Tensor]

PLAIN_TENSORS = (Tensor, nn.Parameter)


class Node(Protocol):
    """A value taken apart."""

    def restore(self, now: Any, fetch: Fetch) -> Any:
        """Return the value as it was; what stands there now is changed in place where that can be done.

        Args:
            now: What stands in its place.
            fetch: Gives the tensor that was kept under a number.
        """


class Packer:
    """Takes values apart.

    Args:
        live: Ids of tensors that are left as they are: the parameters, which are kept elsewhere.

    Attributes:
        tensors: What is to be kept, by number.
    """

    def __init__(self, live: Collection[int] = ()) -> None:
        self.tensors: list[Tensor] = []
        self._live = live
        self._numbers: dict[int, int] = {}
        self._under_way: set[int] = set()

    def pack(self, value: Any) -> Node:
        """Take a value apart; containers, tensors, generators and plain objects, in any nesting."""
        if isinstance(value, Tensor):
            if id(value) in self._live:
                return _Fixed(value)
            return self._wrapper(value) if hasattr(value, "__tensor_flatten__") else self._tensor(value)
        if isinstance(value, (*_PLAIN, *_AS_THEY_ARE)) or callable(value) or id(value) in self._under_way:
            return _Fixed(value)
        self._under_way.add(id(value))
        try:
            return self._container(value)
        finally:
            self._under_way.discard(id(value))

    def _tensor(self, value: Tensor) -> Node:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.tensors)
            self.tensors.append(value)
        return _Kept(self._numbers[id(value)], value.device)

    def _wrapper(self, value: Any) -> Node:
        names, context = value.__tensor_flatten__()
        inner = {name: self.pack(getattr(value, name)) for name in names}
        return _Wrapper(type(value), inner, context, value.shape, value.stride())

    def _container(self, value: Any) -> Node:
        if isinstance(value, Mapping) and hasattr(value, "clear"):
            return _Mapping(_emptied(value), {key: self.pack(item) for key, item in value.items()})
        if isinstance(value, (list, deque)):
            return _Sequence(_emptied(value), [self.pack(item) for item in value])
        if isinstance(value, tuple):
            return _Tuple(type(value), [self.pack(item) for item in value])
        if isinstance(value, torch.Generator):
            return _Generator(value.get_state(), value.device)
        if (package := type(value).__module__.partition(".")[0]) == "torch":
            return _Fixed(value)  # a mesh of devices, a group of processes
        if package in sys.stdlib_module_names or not hasattr(value, "__dict__"):
            return _Copied(value)
        return _Object(type(value), {name: self.pack(item) for name, item in vars(value).items()})


class _Fixed:
    """What does not change, or is somebody else's."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def restore(self, now: Any, fetch: Fetch) -> Any:
        return self._value


class _Kept:
    def __init__(self, number: int, device: torch.device) -> None:
        self._number, self._device = number, device

    def restore(self, now: Any, fetch: Fetch) -> Any:
        kept = fetch(self._number)
        if isinstance(now, Tensor) and can_take(now, kept):
            put(now, kept)
            return now
        return kept.to(self._device).clone()


class _Wrapper:
    """A tensor of a class that wraps others, quantised or sharded: many such classes cannot be cloned."""

    def __init__(self, cls: Any, inner: dict[str, Node], context: Any, shape: Any, stride: Any) -> None:
        self._cls, self._inner, self._made_with = cls, inner, (context, shape, stride)

    def restore(self, now: Any, fetch: Fetch) -> Any:
        mine = now if type(now) is self._cls and now.shape == self._made_with[1] else None
        inner = {name: node.restore(getattr(mine, name, None), fetch) for name, node in self._inner.items()}
        is_same = mine is not None and all(getattr(mine, name) is value for name, value in inner.items())
        return mine if is_same else self._cls.__tensor_unflatten__(inner, *self._made_with)


class _Mapping:
    def __init__(self, empty: Any, items: dict[Any, Node]) -> None:
        self._empty, self._items = empty, items

    def restore(self, now: Any, fetch: Fetch) -> Any:
        mine = now if type(now) is type(self._empty) else copy.copy(self._empty)
        items = {key: node.restore(mine.get(key), fetch) for key, node in self._items.items()}
        mine.clear()
        mine.update(items)
        return mine


class _Sequence:
    def __init__(self, empty: Any, items: list[Node]) -> None:
        self._empty, self._items = empty, items

    def restore(self, now: Any, fetch: Fetch) -> Any:
        mine = now if type(now) is type(self._empty) else copy.copy(self._empty)
        items = _restored(self._items, list(mine), fetch)
        mine.clear()
        mine.extend(items)
        return mine


class _Tuple:
    def __init__(self, cls: type, items: list[Node]) -> None:
        self._cls, self._items = cls, items

    def restore(self, now: Any, fetch: Fetch) -> Any:
        items = _restored(self._items, list(now) if isinstance(now, tuple) else [], fetch)
        return self._cls(*items) if hasattr(self._cls, "_fields") else self._cls(items)


class _Generator:
    def __init__(self, state: Tensor, device: torch.device) -> None:
        self._state, self._device = state, device

    def restore(self, now: Any, fetch: Fetch) -> Any:
        mine = now if isinstance(now, torch.Generator) else torch.Generator(self._device)
        mine.set_state(self._state)
        return mine


class _Object:
    def __init__(self, cls: type, items: dict[str, Node]) -> None:
        self._cls, self._items = cls, items

    def restore(self, now: Any, fetch: Fetch) -> Any:
        mine = now if type(now) is self._cls else object.__new__(self._cls)
        items = {name: node.restore(vars(mine).get(name), fetch) for name, node in self._items.items()}
        vars(mine).clear()
        vars(mine).update(items)
        return mine


class _Copied:
    """What only its own class can copy; left as it is where that fails."""

    def __init__(self, value: Any) -> None:
        self._value, self._is_copied = value, True
        try:
            self._value = copy.deepcopy(value)
        except Exception:
            self._is_copied = False

    def restore(self, now: Any, fetch: Fetch) -> Any:
        return copy.deepcopy(self._value) if self._is_copied else now


def can_take(now: Tensor, kept: Tensor) -> bool:
    """True if a kept tensor can be copied into one that is there."""
    return local_part(now).shape == kept.shape and now.dtype == kept.dtype


@torch.no_grad()
def put(now: Tensor, kept: Tensor) -> None:
    """Copy a kept tensor into one that is there, which stays the same object."""
    mine = local_part(now)
    mine.copy_(kept.to(mine.device))


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor itself."""
    if type(tensor) in PLAIN_TENSORS:  # to ask one for an attribute that it lacks takes long
        return tensor.detach()
    to_local = getattr(tensor, "to_local", None)
    return tensor.detach() if to_local is None else to_local().detach()


def _emptied(container: Any) -> Any:
    empty = copy.copy(container)
    empty.clear()
    return empty


def _restored(nodes: list[Node], now: list[Any], fetch: Fetch) -> list[Any]:
    now += [None] * (len(nodes) - len(now))
    return [node.restore(mine, fetch) for node, mine in zip(nodes, now, strict=False)]
