"""The engines of a training: one per optimizer, and the saved states that wait for theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch

from grad_callbacks._utils.lightning import rank_zero_warn
from grad_callbacks.callbacks._checkpoint import explained, stamp
from grad_callbacks.engine.engine import Engine


class Engines:
    """Keeps the engines by the index of their optimizer.

    Args:
        owner: The callback's class, for messages.

    Attributes:
        by_index: The engines; empty unless a training is under way.
    """

    def __init__(self, owner: str) -> None:
        self.by_index: dict[int, Engine] = {}
        self._owner = owner
        self._saved: dict[int, dict[str, Any]] = {}  # states that wait for their engine
        self._stamp = stamp()  # of the version that wrote them

    def __iter__(self) -> Iterator[Engine]:
        return iter(self.by_index.values())

    def of(self, optimizer: torch.optim.Optimizer) -> Engine | None:
        """Return the engine that watches ``optimizer``."""
        return next((engine for engine in self if engine.optimizer is optimizer), None)

    def add(self, index: int, engine: Engine) -> Engine:
        """Add an engine, which continues from the state that waits for it, and return it."""
        self.by_index[index] = engine
        self._load(index)
        return engine

    def retire(self, index: int) -> None:
        """Close the engine of that index, if there is one, and keep its state for the next."""
        if index in self.by_index:
            self._saved[index] = self.by_index[index].state_dict()
            self.by_index[index].close()

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return each engine's state."""
        return self._saved | {index: engine.state_dict() for index, engine in self.by_index.items()}

    def load_state_dict(self, states: Mapping[int, dict[str, Any]], written_by: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; engines that are still to come take their part when they are added.

        Args:
            states: By optimizer.
            written_by: The stamp of the version that wrote them; empty if there is none.
        """
        self._saved, self._stamp = dict(states), dict(written_by)
        for index in self.by_index:  # sharded strategies load after the start
            self._load(index)

    def close(self) -> None:
        """Keep the states and close the engines."""
        for index, engine in self.by_index.items():
            try:
                self._saved[index] = engine.state_dict()
            except RuntimeError as error:  # a device that has failed: the user's own error says more
                rank_zero_warn(f"{self._owner}: the last step could not be judged: {error}")
            with suppress(RuntimeError):
                engine.close()

    def clear(self) -> None:
        """Let go of the engines, which hold model and optimizer."""
        self.by_index = {}

    def _load(self, index: int) -> None:
        if index in self._saved:
            with explained(self._stamp, self._owner):
                self.by_index[index].load_state_dict(self._saved.pop(index))
