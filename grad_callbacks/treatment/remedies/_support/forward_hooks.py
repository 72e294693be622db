"""Hooks on modules that come and go with the engine, for remedies that act in the forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class InForward:
    """Acts by hooks on modules.

    Plain values say where the hooks are. The hooks themselves are part of no copy and no checkpoint; :meth:`attach`
    makes new ones.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def attach(self, model: nn.Module) -> None:
        """Put the hooks in place, after removing those that are there."""
        self.detach()
        self._handles = list(self._hook_into(model))

    def detach(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook_into(self, model: nn.Module) -> Iterable[RemovableHandle]:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hooks to the original: a copy has none before :meth:`attach`."""
        return {**self.__dict__, "_handles": []}
