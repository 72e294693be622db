"""What a remedy is, and the one thing it may touch: the optimizer step about to be taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from grad_callbacks.gradients import Reading
from grad_callbacks.remedies.learning_rate import LearningRate


class OptimizerStep:
    """The optimizer step about to be taken.

    Attributes:
        reading: Its gradients, as they were before any remedy.
        learning_rate: The learning rate of its optimizer.
        coefficient: What the gradients have been multiplied with so far.
        norm: The global norm after what remedies did so far.
        skipped: True once the step will not be taken.
    """

    def __init__(
        self, reading: Reading, learning_rate: LearningRate, loss_scale: float = 1.0, scaled_in_step: bool = False
    ) -> None:
        self.reading = reading
        self.learning_rate = learning_rate
        self.coefficient = 1.0
        self.norm = reading.norm
        self.skipped = False
        self._loss_scale = loss_scale
        self._scaled_in_step = scaled_in_step

    @torch.no_grad()
    def multiply(self, coefficient: float) -> None:
        """Multiply all gradients with ``coefficient``."""
        torch._foreach_mul_(self._gradients(), coefficient)
        self.coefficient *= coefficient
        self.norm *= coefficient

    @torch.no_grad()
    def clamp(self, limit: float) -> None:
        """Clamp every gradient entry to ``[-limit, limit]`` (complex entries: real and imaginary part)."""
        scaled = limit * self._loss_scale
        gradients = [torch.view_as_real(g) if g.is_complex() else g for g in self._gradients()]
        torch._foreach_clamp_min_(gradients, -scaled)
        torch._foreach_clamp_max_(gradients, scaled)
        # A clamp changes each entry differently, so this norm does need a second pass.
        self.norm = float(torch.stack([g.float().norm().cpu() for g in gradients]).norm()) / self._loss_scale

    @torch.no_grad()
    def skip(self) -> None:
        """Make the step an exact no-op: no momentum, no decay, no step count."""
        self.skipped = True
        self.norm = 0.0
        if not self._scaled_in_step:
            for parameter in self.reading.layers.parameters:
                parameter.grad = None
        elif self.reading.is_finite:
            # A fused optimizer under a loss scaler needs its gradients; it skips when one of them is infinite.
            self._gradients()[0].fill_(torch.inf)

    def _gradients(self) -> list[Tensor]:
        gradients = []
        for parameter in self.reading.layers.parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                # A row that was used twice has two entries until they are added up.
                parameter.grad = parameter.grad.coalesce()
                gradients.append(parameter.grad.values())
            elif parameter.grad is not None:
                gradients.append(parameter.grad)
        return gradients


@runtime_checkable
class Remedy(Protocol):
    """Changes training in answer to an alert.

    A remedy of your own is a class with these members; nothing needs to be registered. Each optimizer gets
    its own copy.
    """

    def engage(self, step: OptimizerStep, evidence: Mapping[str, float]) -> dict[str, Any] | None:
        """Switch on, for this very step and those to come.

        Args:
            step: The step that raised the alert.
            evidence: The alert's numbers.

        Returns:
            With what it was switched on, in plain values; None if it has nothing more to give.
        """

    def act(self, step: OptimizerStep) -> bool:
        """Act on a step while switched on; return whether anything was changed."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as plain numbers, strings and lists."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
