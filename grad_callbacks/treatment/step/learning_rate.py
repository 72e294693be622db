"""A factor on the learning rate that survives every scheduler."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from grad_callbacks.measurement import DeviceTransfer, arrives_later


class LearningRate:
    """Scales an optimizer's learning rates during its steps only.

    Between steps the parameter groups hold the rates that the user's scheduler set, so schedulers and checkpoints see
    only those; only :attr:`scale` is state. A permanent change of the groups would be overwritten by LambdaLR,
    CyclicLR, OneCycleLR and others, or compound with them.

    Attributes:
        scale: The factor, 1 until a remedy changes it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.scale = 1.0
        self._optimizer = optimizer
        self._clean: list[float | Tensor | None] | None = None  # the user's rates, during a step
        self._placed: list[float | None] | None = None  # what is in the groups instead
        self._is_scaled = False
        self._arriving: DeviceTransfer | None = None  # rates in tensors on an accelerator, on their way to the host
        self._arrived: list[float] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def reduce(self, factor: float) -> None:
        """Multiply the scale with ``factor``, also for the current step; a factor above 1 reverts earlier ones."""
        self.scale *= factor
        if math.isclose(self.scale, 1.0):
            self.scale = 1.0  # all was taken back: the user's rate to the bit
        if self._clean is not None:
            self._place(self.scale)

    def clean(self) -> list[float]:
        """The rates of the parameter groups as the user's scheduler set them; NaN where a group has none.

        Rates in tensors on an accelerator are those of an earlier step, NaN at first: the host does not wait for them.
        """
        rates = self._clean if self._clean is not None else self._current()
        arrived = iter(self._arrived)
        return [next(arrived, math.nan) if _is_remote(r) else math.nan if r is None else float(r) for r in rates]

    def effective(self) -> list[float]:
        """The rates that steps are taken with."""
        return [rate * self.scale for rate in self.clean()]

    def follow(self) -> None:
        """Use a rate that the user has set in the middle of a step, and scale that."""
        if self._clean is not None and self._placed is not None:
            for index, (group, placed) in enumerate(zip(self._optimizer.param_groups, self._placed, strict=False)):
                if placed is not None and group["lr"] != placed:
                    self._clean[index] = _copy(group["lr"])
            self._place(self.scale)

    def restore(self) -> None:
        """Restore the user's rates after a step, or one that an exception cut short."""
        if self._clean is not None and self.scale != 1.0:
            self.follow()
            self._place(1.0)
        self._clean = self._placed = None

    def remove(self) -> None:
        """Restore the user's rates and stop scaling."""
        self.restore()
        for handle in self._handles:
            handle.remove()

    def _current(self) -> list[float | Tensor | None]:
        # Some optimizers find their own rate: theirs is None, or there is no such entry.
        return [group.get("lr") for group in self._optimizer.param_groups]

    def _before_step(self, *_: Any) -> None:
        self.restore()
        self._clean = [_copy(rate) for rate in self._current()]
        if self._arriving is not None:
            self._arrived = [float(rate[0]) for rate in self._arriving.wait()]
        remote = [rate.double() for rate in self._clean if isinstance(rate, Tensor) and _is_remote(rate)]
        self._arriving = DeviceTransfer(remote) if remote else None
        self._place(self.scale)

    def _after_step(self, *_: Any) -> None:
        self.restore()

    def _place(self, factor: float) -> None:
        """Put the clean rates times ``factor`` into the parameter groups."""
        assert self._clean is not None
        self._placed = []  # numbers only: to compare tensors may mean to wait
        for group, rate in zip(self._optimizer.param_groups, self._clean, strict=False):
            self._placed.append(None if rate is None or isinstance(rate, Tensor) else rate * factor)
            if isinstance(rate, Tensor):
                if factor != 1.0 or self._is_scaled:
                    group["lr"].copy_(rate * factor)  # in place: captured graphs hold this tensor
            elif rate is not None and group["lr"] != rate * factor:
                group["lr"] = rate * factor
        self._is_scaled = factor != 1.0


def _copy(rate: float | Tensor | None) -> float | Tensor | None:
    return rate.clone() if isinstance(rate, Tensor) else rate


def _is_remote(rate: object) -> bool:
    return isinstance(rate, Tensor) and arrives_later(rate.device)
