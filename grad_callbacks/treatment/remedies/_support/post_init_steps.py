"""Limited steps after an initialisation, so that they do not undo it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement import QuietBlock, Reading
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep

_WEIGHTS = "share of the weights' norm"
_RATE = "x the user's rate"
_PLAIN = (
    "measured: of 20 made-up runs of plain recurrences 19 learn so, 14 without the clip, 15 without it and with steps "
    "twice as long"
)
_GATED = "measured: of 24 made-up runs of gated cells that begin with closed gates 21 learn so, 8 at the user's rate"


@dataclass(frozen=True)
class FittedStepsThresholds(Thresholds):
    """The numbers of :class:`FittedSteps`."""

    sgd_plain_rnn_stride: float = threshold(
        0.002,
        "largest step of SGD in a plain recurrence",
        unit=_WEIGHTS,
        source="measured: 0.004 lost some runs that this kept",
    )
    sgd_gated_rnn_stride: float = threshold(
        0.03,
        "largest step of SGD in a net with gated cells, which bear more and are slow with less",
        unit=_WEIGHTS,
        source="not measured",
    )
    sgd_stride: float = threshold(0.1, "largest step of SGD in all other nets", unit=_WEIGHTS, source="not measured")
    clip: float = threshold(
        2.0,
        "norm at which gradients are clipped under an adaptive optimizer: one that outweighs all others in its means "
        "leads it astray",
        unit="x usual norm",
        source="measured: of 12 runs of gated cells all learn so, and 10 without",
    )
    usual_norms: int = threshold(
        20, "latest finite norms whose median is the usual one", unit="readings", source="not measured"
    )
    most_change: float = threshold(
        1.5, "largest factor by which the rate rises at a step", unit="1", source="not measured"
    )
    plain_rnn_stride: float = threshold(
        0.005, "step of an adaptive optimizer in a plain recurrence", unit=_WEIGHTS, source=_PLAIN
    )
    plain_rnn_first: float = threshold(
        0.01,
        "rate to begin with there: RMSprop's first steps are ten times as long as later ones",
        unit=_RATE,
        source=_PLAIN,
    )
    plain_rnn_most: float = threshold(1.0, "largest rate there", unit=_RATE, source=_PLAIN)
    plain_rnn_fall: float = threshold(
        0.0, "smallest factor by which the rate falls at a step there", unit="1", source=_PLAIN
    )
    gated_rnn_stride: float = threshold(
        0.015, "step of an adaptive optimizer in a net with gated cells", unit=_WEIGHTS, source=_GATED
    )
    gated_rnn_first: float = threshold(0.1, "rate to begin with there", unit=_RATE, source=_GATED)
    gated_rnn_most: float = threshold(100.0, "largest rate there", unit=_RATE, source=_GATED)
    gated_rnn_fall: float = threshold(
        1 / 1.5, "smallest factor by which the rate falls at a step there", unit="1", source=_GATED
    )


LIMITS = FittedStepsThresholds()


@dataclass(frozen=True)
class Fit:
    """How the rate of an optimizer that rescales gradients is fitted to the steps it takes.

    Attributes:
        stride: How far a step shall move the weights, as a share of their norm.
        first: The rate to begin with, as a share of the user's.
        most: The largest rate, as a multiple of the user's.
        fall: The smallest factor by which it may change at a step.
    """

    stride: float
    first: float
    most: float
    fall: float


FIT_PLAIN = Fit(LIMITS.plain_rnn_stride, LIMITS.plain_rnn_first, LIMITS.plain_rnn_most, LIMITS.plain_rnn_fall)
FIT_GATED = Fit(LIMITS.gated_rnn_stride, LIMITS.gated_rnn_first, LIMITS.gated_rnn_most, LIMITS.gated_rnn_fall)


class FittedSteps:
    """Limits the steps that follow an initialisation to a length that does not undo it.

    A net that keeps its gradient over many layers or steps is one step away from one where it explodes. Under SGD
    gradients are clipped at the norm that moves the weights by ``stride`` of their norm (Pascanu, Mikolov & Bengio
    2013, "On the difficulty of training recurrent neural networks", sec. 3.2). Clipping does not change
    the steps of an adaptive optimizer: with recurrent nets its rate is fitted, step by step, so that the weights move
    by 0.5% of their norm at most in a plain one, and by 1.5% in a gated one, where the rate may rise to a hundred times
    the user's; and gradients are clipped at twice their usual norm. Where the user's schedule or another remedy lowers
    the rate the steps get shorter in proportion.

    Attributes:
        stride: How far a step may move the weights, as a share of their norm; None where nothing is limited.
    """

    def __init__(self) -> None:
        self.stride: float | None = None
        self._max_norm: float | None = None
        self._moved = math.nan  # by the latest step that was measured
        self._seen = math.nan  # what the rate has been fitted to already: later steps are measured now and then
        self._norms: list[float] = []  # the latest finite ones
        self._fit: Fit | None = None  # under an adaptive optimizer
        self._factor: LRMultiplier | None = None  # on its rate
        self._rate = math.nan  # without that factor, when it began

    def begin(self, step: OptimizerStep, model: nn.Module) -> None:
        """Fit the steps from the next one on."""
        self._norms.clear()  # those of other weights
        kinds = {type(module) for module in model.modules() if isinstance(module, nn.RNNBase)}
        if step.plan.reach is not None:
            gated = LIMITS.sgd_gated_rnn_stride if kinds else LIMITS.sgd_stride
            self.stride = LIMITS.sgd_plain_rnn_stride if nn.RNN in kinds else gated
        elif kinds:
            self._fit = FIT_PLAIN if nn.RNN in kinds else FIT_GATED
            self.stride = self._fit.stride

    def note(self, reading: Reading) -> None:
        """Note how far the latest step has moved the weights, and how large gradients are."""
        self._moved = reading.moved
        if reading.is_finite:
            self._norms = [*self._norms, reading.norm][-LIMITS.usual_norms :]

    @property
    def is_idle(self) -> bool:
        """True while nothing is limited."""
        return self._fit is None and self._max_norm is None and self.stride is None

    def take_in(self, block: QuietBlock) -> None:
        """The same as :meth:`note` for finite readings."""
        self._moved = block.latest.moved
        self._norms = [*self._norms, *block.norms][-LIMITS.usual_norms :]

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Clip, or change the rate; return whether that was done."""
        if self._fit is not None:
            is_changed = self._change_rate(step, self._fit)
            usual = median_low(self._norms) if self._norms else math.inf
            return step.limit_norm(LIMITS.clip * usual) | is_changed
        if self._max_norm is None and self.stride is not None and step.reading.is_finite:
            self._find_max_norm(step, self.stride)
        return False if self._max_norm is None else step.limit_norm(self._max_norm)

    def _find_max_norm(self, step: OptimizerStep, stride: float) -> None:
        """Find it at the first finite step."""
        displacement = step.reading.displacement
        if displacement > 0:
            self._max_norm = step.reading.norm * stride / displacement
        else:
            self.stride = None  # nothing to limit

    def _change_rate(self, step: OptimizerStep, fit: Fit) -> bool:
        """Change it so that the next step moves the weights as it should, once for each step that was measured."""
        if self._factor is None:
            self._factor, self._rate = LRMultiplier(), step.learning_rate.effective()[0]
            self._factor.set(step.learning_rate, fit.first)
        elif self._moved > 0 and self._moved != self._seen:  # NaN before it was measured
            rate = step.learning_rate.effective()[0] / self._factor.scale
            stride = fit.stride * min(1.0, rate / self._rate) if self._rate > 0 else fit.stride
            change = min(LIMITS.most_change, max(fit.fall, stride / self._moved))
            self._factor.set(step.learning_rate, min(fit.most, self._factor.scale * change))
            self._seen = self._moved
        return self._factor.scale != 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        fit = None if self._fit is None else asdict(self._fit)
        factor = None if self._factor is None else self._factor.state_dict()
        seen = {"moved": self._moved, "seen": self._seen, "rate": self._rate, "norms": list(self._norms)}
        return {"stride": self.stride, "max_norm": self._max_norm, "fit": fit, "factor": factor, **seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.stride, self._max_norm = state["stride"], state["max_norm"]
        self._moved, self._seen, self._rate = state["moved"], state["seen"], state["rate"]
        self._norms = list(state["norms"])
        self._fit = None if state["fit"] is None else Fit(**state["fit"])
        if state["factor"] is not None:
            self._factor = LRMultiplier()
            self._factor.load_state_dict(state["factor"])
