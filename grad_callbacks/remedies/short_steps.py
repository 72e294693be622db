"""Steps that do not undo an initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from grad_callbacks.gradients import Reading
from grad_callbacks.remedies.optimizer_step import OptimizerStep
from grad_callbacks.remedies.rate_cut import RateCut

# Of the weights' norm, that a step of SGD may move them.
PLAIN = 0.002  # in a plain recurrence; 0.004 lost some that this kept
GATED = 0.03  # in gated ones, which bear more, and are slow with less
LONGEST = 0.1  # in all other nets
ADAPTIVE = 0.02  # the same in a plain recurrence under an optimizer that rescales gradients
FIRST = 0.01  # of the user's rate that such an optimizer begins with
RISE = 1.5  # by which it may rise from step to step


class ShortSteps:
    """Keeps the steps short that follow an initialisation.

    A net that keeps its gradient over many layers or steps is one step away from one that blows it up. Under SGD
    gradients are clipped at the norm that moves the weights by ``stride`` of their norm (Pascanu, Mikolov & Bengio
    2013, "On the difficulty of training recurrent neural networks", sec. 3.2). An adaptive optimizer takes no notice of
    that; with plain recurrences, which bear least, its rate begins at a hundredth and rises by half each step as long
    as the weights move by no more than 2% of their norm. RMSprop's first steps are ten times as long as later ones.

    Attributes:
        stride: Of the weights' norm, that a step of SGD may move them; None before :meth:`begin`.
    """

    def __init__(self) -> None:
        self.stride: float | None = None
        self._max_norm: float | None = None
        self._moved = math.nan  # by the latest step that was measured
        self._seen = math.nan  # what the rate has been fitted to already: later steps are measured now and then
        self._cut: RateCut | None = None  # of an adaptive optimizer's rate

    def begin(self, model: nn.Module) -> None:
        """Limit the steps from the next one on."""
        kinds = {type(module) for module in model.modules() if isinstance(module, nn.RNNBase)}
        self.stride = PLAIN if nn.RNN in kinds else GATED if kinds else LONGEST

    def note(self, reading: Reading) -> None:
        """Note how far the latest step has moved the weights."""
        self._moved = reading.moved

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Clip, or lower the rate; tell whether that was done."""
        if self._cut is not None and self._moved > 0 and self._moved != self._seen:  # NaN before it was measured
            self._cut.set(step.learning_rate, min(1.0, self._cut.scale * min(RISE, ADAPTIVE / self._moved)))
            self._seen = self._moved
        elif self._cut is None and self._max_norm is None and self.stride is not None and step.reading.is_finite:
            self._find_the_limit(step, self.stride)
        if self._cut is not None:
            return self._cut.scale < 1.0
        return False if self._max_norm is None else step.limit_norm(self._max_norm)

    def _find_the_limit(self, step: OptimizerStep, stride: float) -> None:
        """Find it at the first finite step; an adaptive optimizer's displacement is unknown."""
        displacement = step.reading.displacement
        if displacement > 0:
            self._max_norm = step.reading.norm * stride / displacement
        elif math.isnan(displacement) and stride == PLAIN:
            self._cut = RateCut()
            self._cut.set(step.learning_rate, FIRST)
        else:
            self.stride = None  # nothing to limit

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        cut = None if self._cut is None else self._cut.state_dict()
        seen = {"moved": self._moved, "seen": self._seen}
        return {"stride": self.stride, "max_norm": self._max_norm, "cut": cut, **seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.stride, self._max_norm = state["stride"], state["max_norm"]
        self._moved, self._seen = state["moved"], state["seen"]
        if state["cut"] is not None:
            self._cut = RateCut()
            self._cut.load_state_dict(state["cut"])
