"""Limited steps after an initialisation of a plain recurrence, so that they do not undo it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class ShortStepsThresholds(Thresholds):
    """The numbers of :class:`ShortSteps`."""

    stride: float = threshold(
        0.002,
        "largest step of SGD in a plain recurrence",
        unit="share of the weights' norm",
        source="measured: 0.004 lost some runs that this kept; without a limit two of two runs learned nothing",
    )


LIMITS = ShortStepsThresholds()


class ShortSteps:
    """Clips the gradients of a plain recurrence under SGD at the norm that moves the weights by ``stride`` of theirs.

    Such a net keeps its gradient over many steps of a sequence after an initialisation, and is one long step away from
    one where it explodes (Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks",
    sec. 3.2). The steps of other nets and of adaptive optimizers are left alone.

    Attributes:
        stride: How far a step may move the weights, as a share of their norm; None where nothing is limited.
    """

    def __init__(self) -> None:
        self.stride: float | None = None
        self._max_norm: float | None = None

    def begin(self, step: OptimizerStep, model: nn.Module) -> None:
        """Limit the steps from the next one on."""
        is_plain = any(type(module) is nn.RNN for module in model.modules())
        self.stride = LIMITS.stride if is_plain and step.plan.reach is not None else None

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Clip, and return whether that was done; the norm is found at the first finite step."""
        if self._max_norm is None and self.stride is not None and step.reading.displacement > 0:
            self._max_norm = step.reading.norm * self.stride / step.reading.displacement
        return False if self._max_norm is None else step.limit_norm(self._max_norm)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"stride": self.stride, "max_norm": self._max_norm}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.stride, self._max_norm = state["stride"], state["max_norm"]
