"""Restore buffers after a step that is not taken."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from grad_callbacks.treatment.step.snapshot_store import LIMITS


class BufferGuard:
    """Keeps a model's floating-point buffers, and restores them after a forward pass that was not finite.

    A step that is skipped leaves weights and optimizer alone, but its forward pass has already changed the running
    statistics of batch normalisation, and one NaN there makes every later evaluation NaN.

    Args:
        model: Its buffers are kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept: list[Tensor] = []
        self._known: list[int] = []
        self._holders: list[Mapping[str, Tensor | None]] = []  # of the modules that have buffers

    @torch.no_grad()
    def settle(self, is_bad: bool | Tensor) -> None:
        """Restore the buffers if the step is bad, else keep a copy of them.

        Args:
            is_bad: A scalar on the device is not read by the host.
        """
        now = [b for b in self._model.buffers() if b.is_floating_point() and b.numel()]
        self._holders = [held for m in self._model.modules() if (held := m._buffers)]
        if not now or sum(b.numel() * b.element_size() for b in now) > LIMITS.least:
            return
        if self._known != list(map(id, now)):
            self._known = list(map(id, now))
            self._kept = [b.detach().clone() for b in now]
        for buffer, kept in zip(now, self._kept, strict=True):
            if isinstance(is_bad, Tensor):
                buffer.copy_(torch.where(is_bad.to(buffer.device), kept, buffer))
                kept.copy_(buffer)
            elif is_bad:
                buffer.copy_(kept)
            else:
                kept.copy_(buffer)

    @torch.no_grad()
    def keep(self) -> None:
        """Keep a copy of the buffers after a good step; those of modules that are new are kept from :meth:`settle` on.

        A walk over all modules would take longer than the copies.
        """
        if not self._kept:
            return
        found = [b for held in self._holders for b in held.values() if b is not None]
        now = [b for b in found if b.is_floating_point() and b.numel()]
        if self._known == list(map(id, now)):
            torch._foreach_copy_(self._kept, now)
        else:
            self.settle(False)
