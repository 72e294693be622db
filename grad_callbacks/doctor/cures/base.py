"""What a cure is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import nn

from grad_callbacks.callbacks._base import Callback
from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup

Touches = Literal["weights", "modules", "steps"]


class Cure(ABC):
    """One change of a training.

    Attributes:
        name: Short name.
        slot: Two cures of one slot are not combined.
        touches: ``"weights"``, ``"modules"``, or the ``"steps"`` alone: what may be protected.
    """

    slot: ClassVar[str]
    touches: ClassVar[Touches] = "steps"
    name: str

    @abstractmethod
    def applies(self, ill: Attempt) -> bool:
        """True if there is something for it to change.

        Args:
            ill: What came of the training as it is.
        """

    @abstractmethod
    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Change a training that has not begun.

        Args:
            setup: Is changed in place.
            known: What the first step of the training as it is has shown.

        Returns:
            The lines of code to change, old -> new.
        """


class AtStart(Callback):
    """Calls a function with the Trainer when the optimizers are there and no step was taken.

    Args:
        change: Is called once.
    """

    def __init__(self, change: Any) -> None:
        self._change = change

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the change."""
        self._change(trainer)


def replace_module(root: nn.Module, name: str, new: nn.Module) -> None:
    """Put ``new`` in the place of the module ``name``."""
    home, _, own = name.rpartition(".")
    parent = root.get_submodule(home)
    if own in parent._modules:
        parent._modules[own] = new


def refused(cure: Cure, known: Inspection) -> str:
    """Why a cure must not be tried; "" if it may."""
    if cure.touches == "steps":
        return ""
    what = "weights and modules are not changed"
    if known.quantised:
        return f"{what}: {_some(known.quantised)} is quantised"
    if known.trained:
        return f"{what}: the weights of {_some(known.trained)} look trained or are frozen"
    if cure.touches == "weights" and known.tied:
        return f"no weights are drawn again: some are tied ({_some(known.tied)})"
    return ""


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
