"""What a remedy is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


@runtime_checkable
class Remedy(Protocol):
    """Changes training in answer to an alert.

    A remedy of your own is a class with these members; nothing needs to be registered. Each optimizer gets
    its own copy. It may have more: ``release(step)`` switches it off and says whether that changed anything;
    ``before_backward(loss)`` is called with each loss before its backward pass; ``note(step, is_well)`` with each step
    that has been judged, and whether nothing was wrong or about to be; ``attach(model)`` puts hooks in place
    after a checkpoint was loaded, and ``detach()`` takes them away when the engine is closed. A true ``proves_itself``
    says that it is switched on only where it has seen what is wrong: a warning then goes on to the next, and no trial
    is needed. Such remedies stand first in a list. A true ``supports`` says that it is not switched on in its turn, but
    beside the one of its list that answers the alert, each time one does. Such remedies stand last, and never alone.
    """

    def engage(self, step: OptimizerStep, evidence: Mapping[str, float]) -> dict[str, Any] | None:
        """Switch on, for this very step and those to come.

        Args:
            step: The step that raised the alert. On an accelerator it may have been taken already
                (:attr:`~grad_callbacks.treatment.step.optimizer_step.OptimizerStep.is_taken`).
            evidence: The alert's numbers.

        Returns:
            With what it was switched on, in plain values; None if it has nothing more to give.
        """

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Act on a step while switched on.

        Returns:
            Whether anything was changed; a scalar on the device where only the device knows it yet.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as plain numbers, strings and lists."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
