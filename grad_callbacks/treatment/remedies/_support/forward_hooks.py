"""What remedies have in common that live in the forward pass: hooks that come and go with the engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


class InForward:
    """A remedy whose work is done by hooks on modules.

    Plain values say where the hooks are; the hooks themselves belong to no copy and no checkpoint, and are made anew
    by :meth:`attach`. The first step after the remedy was switched on is skipped: its gradients come from a forward
    pass without it.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._skip_next = False

    def attach(self, model: nn.Module) -> None:
        """Put the hooks in place, those that are there already anew."""
        self.detach()
        self._handles = list(self._hook_into(model))

    def detach(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook_into(self, model: nn.Module) -> Iterable[RemovableHandle]:
        raise NotImplementedError

    def _skips(self, step: OptimizerStep) -> bool:
        """Skip the step if it is the first one since the remedy was switched on."""
        skips, self._skip_next = self._skip_next, False
        if skips:
            step.skip()
        return skips

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hooks to the original: a copy has none before :meth:`attach`."""
        return {**self.__dict__, "_handles": []}
