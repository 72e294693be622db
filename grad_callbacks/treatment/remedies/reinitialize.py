"""Initialise the weights again before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from grad_callbacks._utils.compiled import can_run_eagerly
from grad_callbacks._utils.validation import at_least
from grad_callbacks.detection.diagnosis.probes import PROBE_LIMITS
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.measurement.sharding import is_alone
from grad_callbacks.treatment.remedies._support.agreement import from_all
from grad_callbacks.treatment.remedies._support.initialisation import LIMITS as GOOD
from grad_callbacks.treatment.remedies._support.initialisation import initialise, put_weights
from grad_callbacks.treatment.remedies._support.short_steps import ShortSteps
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies._support.trained_weights import trained_layers
from grad_callbacks.treatment.remedies._support.weight_fill import Scheme
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState


class Reinitialize(SkipNext, Remedy):
    """Gives the model fresh weights that let signal and error through, while nothing has been learned yet.

    By layer-sequential unit variance: orthogonal weights, each layer scaled on the batch at hand so that its output has
    unit size (Mishkin & Matas 2016, "All you need is a good init"). Residual branches are scaled down by the root of
    their number (Zhang et al. 2019, "Fixup"). A forward and a backward pass measure the result; weights that are no
    better are not kept. The current step is skipped, since its gradients belong to the old weights.

    Weights that were trained before are never touched: it acts in the first ``within`` readings of a run that was
    watched from its first step, if the loss has not come down, and only on weights that look freshly drawn (see
    ``_support/trained_weights.py``). Frozen parameters are a sign of weights worth keeping, too. Sharded weights are
    left alone.

    The steps of a plain recurrence under SGD are limited to 0.2% of the weights' norm from then on (``ShortSteps``).

    Args:
        scheme: ``"lsuv"``, or ``"orthogonal"``, ``"he"`` or ``"xavier"``, which need no batch.
        within: Readings in which it may act.
        even_if_trained: Do it whatever the weights look like.
        beside: Supplement a remedy that has gone back to the weights of the start (see :attr:`supplements`), and
            replace those only if signal or error spreads over more than tenfold there, by what is measured.

    Raises:
        ValueError: If ``scheme`` is unknown or ``within`` is not a whole number of at least 1.
    """

    changes_weights = True
    reinitializes = True
    begins_anew = True
    acts_at_start = True
    needs_snapshots = True

    def __init__(
        self,
        scheme: Scheme = "lsuv",
        within: int = PROBE_LIMITS.initialisation_matters,
        even_if_trained: bool = False,
        beside: bool = False,
    ) -> None:
        if scheme not in get_args(Scheme):
            raise ValueError(f"scheme must be one of {', '.join(get_args(Scheme))}, got {scheme!r}")
        self.scheme: Scheme = scheme
        self.within = at_least("within", within, 1)
        self.even_if_trained = bool(even_if_trained)
        self.supplements = bool(beside)
        self._done = False
        self._steps = ShortSteps()

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Initialise the weights now, and skip the current step. Once only."""
        run_state = step.run_state
        if self._done or run_state is None or step.layers.sharding is not None or not self._is_allowed(run_state):
            return None
        if self.supplements and not run_state.is_at_the_start:
            return None
        self._done = True
        kept = [parameter.detach().clone() for parameter in run_state.model.parameters()]
        if step.snapshots is not None and step.snapshots.first is not None and run_state.readings > 1:
            step.snapshots.restore(step.snapshots.first)
        found = initialise(run_state.model, self.scheme, _replay(run_state), evidence.recurrence is not None)
        if self.supplements and not _were_poor(found):
            found = None
        detail = _as_on_the_first_process(run_state.model, found)
        if detail is None:
            put_weights(run_state.model, kept)
            return None
        run_state.restarted_from = "start"
        self.skip_next_step(not self.supplements)  # else the remedy that it supplements skips the step
        self._steps.begin(step, run_state.model)
        return detail if self._steps.stride is None else {**detail, "stride": self._steps.stride}

    def _is_allowed(self, run_state: RunState) -> bool:
        if not run_state.from_start or run_state.readings > self.within or run_state.has_much_to_lose:
            return False
        if self.even_if_trained:
            return True
        if not all(parameter.requires_grad for parameter in run_state.model.parameters()):
            return False
        first = run_state.snapshots.first_parameters() if run_state.snapshots is not None else {}
        return not trained_layers(run_state.model, first)

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the first step after the initialisation, whose gradients are of the old weights; limit later ones."""
        return self._skips(step) or self._steps.act(step)

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if self._steps.stride is None and not self._skip_next else 0

    def state_dict(self) -> dict[str, Any]:
        """Return whether it is done, and how it limits the steps."""
        return {"done": self._done, "skip_next": self._skip_next, "steps": self._steps.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._done, self._skip_next = state["done"], state["skip_next"]
        self._steps.load_state_dict(state["steps"])


def _were_poor(found: Mapping[str, Any] | None) -> bool:
    """True if the old weights, as measured, let signal or error through poorly, and the new ones are better."""
    return found is not None and found["measured"] and found.get("spread_before", math.inf) > GOOD.good_spread


def _replay(run_state: RunState) -> Callable[[], Tensor] | None:
    """How to run the batch again; a model compiled by an old torch has no layers to see."""
    return run_state.batch.replay if can_run_eagerly(run_state.model) else None


@torch.no_grad()
def _as_on_the_first_process(model: nn.Module, detail: dict[str, Any] | None) -> dict[str, Any] | None:
    """Take over weights and detail of the first process: each has seen a batch of its own."""
    if not is_alone():
        for parameter in model.parameters():
            torch.distributed.broadcast(parameter.data, 0)
    return from_all(detail)[0]
