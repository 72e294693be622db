"""BufferGuard as they were before a step that is not taken."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST = 64 * 2**20  # bytes of buffers that are kept; running statistics are far smaller


class BufferGuard:
    """Keeps a model's floating-point buffers, and puts them back after a forward pass that was not finite.

    A step that is skipped leaves weights and optimizer alone, but its forward pass has gone into the running statistics
    of batch normalisation already, and one NaN there spoils every evaluation to come.

    Args:
        model: Its buffers are kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept: list[Tensor] = []
        self._known: list[int] = []

    @torch.no_grad()
    def settle(self, is_bad: bool | Tensor) -> None:
        """Put the buffers back if the step is bad, else keep them as they are now.

        Args:
            is_bad: A scalar on the device is not read by the host.
        """
        now = [b for b in self._model.buffers() if b.is_floating_point() and b.numel()]
        if not now or sum(b.numel() * b.element_size() for b in now) > LARGEST:
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
