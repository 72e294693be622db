"""Batches of text that are not what they should be: tokens ``(batch, time)`` and those that follow them."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.faults.batches import BatchFault


class RepeatedToken(BatchFault):
    """One token over and over, as from a file of padding or of one repeated sign.

    Args:
        step: As for :class:`Fault`.
        steps: As for :class:`Fault`.
        token: Its number.
    """

    def __init__(self, step: int, steps: int | None = 1, token: int = 0) -> None:
        super().__init__(step, steps)
        self.token = token

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Overwrite all tokens."""
        inputs.fill_(self.token)
        targets.fill_(self.token)


class ShuffledTokens(BatchFault):
    """Each window's tokens in a random order, the targets likewise: frequencies are left, and no sense.

    Args:
        step: As for :class:`Fault`.
        steps: As for :class:`Fault`.
    """

    def __init__(self, step: int, steps: int | None = 1) -> None:
        super().__init__(step, steps)
        self._lot = torch.Generator().manual_seed(step)  # its own: the batches to come are those of the unhurt run

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Mix each row."""
        order = torch.rand(inputs.shape, generator=self._lot).argsort(dim=1).to(inputs.device)
        inputs.copy_(inputs.gather(1, order))
        targets.copy_(inputs.roll(-1, dims=1))


class ShiftedTargets(BatchFault):
    """Targets that belong to another place, as from an offset that is wrong.

    Args:
        step: As for :class:`Fault`.
        steps: As for :class:`Fault`.
        offset: By how many places.
    """

    def __init__(self, step: int, steps: int | None = 1, offset: int = 5) -> None:
        super().__init__(step, steps)
        self.offset = offset

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Move the targets along their windows."""
        targets.copy_(targets.roll(self.offset, dims=1))
