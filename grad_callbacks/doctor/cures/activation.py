"""Another activation."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from grad_callbacks.detection.diagnosis.activations import SATURATING
from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure, Touches, replace_module
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup
from grad_callbacks.treatment.remedies._support.fresh_weights import start_again

NEW: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "GELU": nn.GELU, "LeakyReLU": nn.LeakyReLU}


class Activation(Cure):
    """Puts an activation that does not saturate in the place of the hidden layers' own, with weights that go with it.

    Args:
        new: ``"ReLU"`` or ``"GELU"`` for bounded activations, ``"LeakyReLU"`` for rectifiers whose units die.
    """

    slot: ClassVar[str] = "activation"
    touches: ClassVar[Touches] = "modules"

    def __init__(self, new: str) -> None:
        self.new, self.name = new, new
        self._old = ("ReLU", "ReLU6") if new == "LeakyReLU" else SATURATING

    def applies(self, ill: Attempt) -> bool:
        """True if a hidden layer has such an activation, as a module."""
        return bool(self._places(ill.inspection))

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Swap the modules; draw the weights again as He et al. 2015 do."""
        places = self._places(known)
        for name in places:
            replace_module(setup.module, name, NEW[self.new]())
        kinds = list(dict.fromkeys(places.values()))
        more = f", and {len(places) - 1} more" if len(places) > 1 else ""
        lines = [f"`nn.{'`, `nn.'.join(kinds)}()` -> `nn.{self.new}()` at {next(iter(places))}{more}"]
        if known.tied or known.is_recurrent:
            return lines
        start_again(setup.module, "he", "ReLU")
        return [*lines, "`nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')` for each linear layer, biases 0"]

    def _places(self, known: Inspection) -> dict[str, str]:
        return {name: kind for name, kind in known.activations.items() if kind in self._old}
