"""Steps that do not undo an initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from grad_callbacks.gradients import Reading
from grad_callbacks.remedies.optimizer_step import OptimizerStep
from grad_callbacks.remedies.rate_cut import RateCut

# Of the weights' norm, that a step of SGD may move them.
PLAIN = 0.002  # in a plain recurrence; 0.004 lost some that this kept
GATED = 0.03  # in gated ones, which bear more, and are slow with less
LONGEST = 0.1  # in all other nets


@dataclass(frozen=True)
class Fit:
    """How the rate of an optimizer that rescales gradients is fitted to the steps it takes.

    Attributes:
        stride: Of the weights' norm, that a step shall move them.
        first: Of the user's rate, to begin with. RMSprop's first steps are ten times as long as later ones.
        most: Of the user's rate, that it may become.
        least: By which it may change at a step, downwards.
    """

    stride: float
    first: float
    most: float
    least: float


RISE = 1.5  # by which such a rate may rise from step to step
# A plain recurrence bears no long steps: of 8 made-up runs 5 learn so, 3 with steps twice as long, 4 with half.
FIT_PLAIN = Fit(stride=0.01, first=0.01, most=1.0, least=0.0)
# Gated cells that begin with closed gates need longer steps than most rates give them: of 24 made-up runs 21 learn
# so, and 8 at the user's rate.
FIT_GATED = Fit(stride=0.015, first=0.1, most=100.0, least=1 / RISE)
FITS = {PLAIN: FIT_PLAIN, GATED: FIT_GATED}


class ShortSteps:
    """Keeps the steps short that follow an initialisation.

    A net that keeps its gradient over many layers or steps is one step away from one that blows it up. Under SGD
    gradients are clipped at the norm that moves the weights by ``stride`` of their norm (Pascanu, Mikolov & Bengio
    2013, "On the difficulty of training recurrent neural networks", sec. 3.2). An adaptive optimizer takes no notice of
    that: with recurrent nets its rate is fitted, step by step, so that the weights move by 1% of their norm at most in
    a plain one, which bears least, and by 1.5% in a gated one, where the rate may rise to a hundred times the user's.
    Where a schedule lowers the user's rate the steps get shorter in proportion.

    Attributes:
        stride: Of the weights' norm, that a step of SGD may move them; None before :meth:`begin`.
    """

    def __init__(self) -> None:
        self.stride: float | None = None
        self._max_norm: float | None = None
        self._moved = math.nan  # by the latest step that was measured
        self._seen = math.nan  # what the rate has been fitted to already: later steps are measured now and then
        self._cut: RateCut | None = None  # of an adaptive optimizer's rate
        self._rate = math.nan  # the user's when it began

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
            self._fit(step, self._cut)
        elif self._cut is None and self._max_norm is None and self.stride is not None and step.reading.is_finite:
            self._find_the_limit(step, self.stride)
        if self._cut is not None:
            return self._cut.scale != 1.0
        return False if self._max_norm is None else step.limit_norm(self._max_norm)

    def _find_the_limit(self, step: OptimizerStep, stride: float) -> None:
        """Find it at the first finite step; an adaptive optimizer's displacement is unknown."""
        displacement = step.reading.displacement
        if displacement > 0:
            self._max_norm = step.reading.norm * stride / displacement
        elif math.isnan(displacement) and stride in FITS:
            self._cut, self._rate = RateCut(), step.learning_rate.clean()[0]
            self._cut.set(step.learning_rate, FITS[stride].first)
        else:
            self.stride = None  # nothing to limit

    def _fit(self, step: OptimizerStep, cut: RateCut) -> None:
        """Change the rate so that the next step moves the weights as it should."""
        assert self.stride is not None
        fit, rate = FITS[self.stride], step.learning_rate.clean()[0]
        stride = fit.stride * min(1.0, rate / self._rate) if self._rate > 0 else fit.stride
        factor = min(RISE, max(fit.least, stride / self._moved))
        cut.set(step.learning_rate, min(fit.most, cut.scale * factor))
        self._seen = self._moved

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        cut = None if self._cut is None else self._cut.state_dict()
        seen = {"moved": self._moved, "seen": self._seen, "rate": self._rate}
        return {"stride": self.stride, "max_norm": self._max_norm, "cut": cut, **seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.stride, self._max_norm = state["stride"], state["max_norm"]
        self._moved, self._seen, self._rate = state["moved"], state["seen"], state["rate"]
        if state["cut"] is not None:
            self._cut = RateCut()
            self._cut.load_state_dict(state["cut"])
