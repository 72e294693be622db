"""Initialise the weights anew before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from grad_callbacks._utils.compiled import has_compiled_part
from grad_callbacks._utils.validation import at_least
from grad_callbacks.detection.diagnosis.model_structure import branch_ends
from grad_callbacks.detection.diagnosis.signal_flow import Flow, examine
from grad_callbacks.events import Evidence
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.measurement.sharding import is_alone
from grad_callbacks.treatment.remedies._support.lsuv import (
    Draft,
    Scheme,
    Sequences,
    apply,
    measure,
    mirror,
    start_again,
)
from grad_callbacks.treatment.remedies._support.post_init_steps import FittedSteps
from grad_callbacks.treatment.remedies._support.trained_weights import looks_trained
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState

WELL = 1.0  # powers of ten over which signal or error may spread over the layers: nothing needs to be better
TWOFOLD = 0.3  # the same for a recurrence that is at the start again: each step of a sequence adds to it
MIRRORED = ("ReLU", "LeakyReLU", "PReLU", "GELU", "SiLU")  # f(z) - f(-z) is a multiple of z
SIZES = (1.0, 0.6, 0.3)  # of the layers' outputs, tried in turn where activations are bounded


class Reinitialize(Remedy):
    """Gives the model fresh weights that let signal and error through, while nothing has been learned yet.

    By layer-sequential unit variance: orthogonal weights, each layer scaled on the batch at hand so that its output has
    unit size (Mishkin & Matas 2016, "All you need is a good init"). Residual branches are scaled down by the root of
    their number (Zhang et al. 2019, "Fixup"). What comes out is measured by a forward and a backward pass; weights that
    are no better are not kept. The step under way is skipped, since its gradients belong to the old weights.

    Weights that were trained before are never touched: it acts in the first ``within`` readings of a run that was
    watched from its first step, if the loss has not come down, and only on weights that look freshly drawn (see
    ``_support/trained_weights.py``). Frozen parameters are a sign of weights worth keeping, too. Sharded weights are
    left alone.

    The steps that follow are fitted (see ``FittedSteps``): under SGD they move the weights by 10% of their norm at
    most, those of a recurrent net by 0.2%, with gated cells by 3%; under an adaptive optimizer a recurrent net's rate
    is fitted, and on gated cells it may rise to 100 times the user's.

    Args:
        scheme: ``"lsuv"``, or ``"orthogonal"``, ``"he"`` or ``"xavier"``, which need no batch.
        within: Readings in which it may act.
        even_if_trained: Do it whatever the weights look like.
        beside: Stand beside a remedy that has gone back to the weights of the start, and replace those only if signal
            or error spreads over more than tenfold there, in recurrent nets twofold, by what is measured.

    Raises:
        ValueError: If ``scheme`` is unknown or ``within`` is not a whole number of at least 1.

    Attributes:
        supplements: True if it stands beside another remedy of its list, and is not switched on in its turn.
    """

    changes_weights = True
    reinitializes = True
    begins_anew = True
    acts_at_start = True

    needs_snapshots = True

    def __init__(
        self, scheme: Scheme = "lsuv", within: int = 100, even_if_trained: bool = False, beside: bool = False
    ) -> None:
        if scheme not in get_args(Scheme):
            raise ValueError(f"scheme must be one of {', '.join(get_args(Scheme))}, got {scheme!r}")
        self.scheme: Scheme = scheme
        self.within = at_least("within", within, 1)
        self.even_if_trained = bool(even_if_trained)
        self.supplements = bool(beside)
        self._done = False
        self._skip_next = False
        self._steps = FittedSteps()

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Initialise the weights now, and skip the step at hand. Once only."""
        run_state = step.run_state
        if self._done or run_state is None or step.layers.sharding is not None or not self._is_allowed(run_state):
            return None
        if self.supplements and not _is_at_the_start(run_state):
            return None
        self._done = True
        first = run_state.snapshots.first if run_state.snapshots is not None else None
        kept = [parameter.detach().clone() for parameter in run_state.model.parameters()]
        if first is not None and run_state.readings > 1:
            assert run_state.snapshots is not None
            run_state.snapshots.restore(first)
        found = initialise(run_state.model, self.scheme, _replay(run_state), "recurrence" in evidence)
        if self.supplements and not _were_poor(found, run_state.model):
            found = None
        detail = _agreed(run_state.model, found)
        if detail is None:
            with torch.no_grad():
                for parameter, before in zip(run_state.model.parameters(), kept, strict=True):
                    parameter.copy_(before)
            return None
        run_state.restarted_from = "start"
        self._skip_next = not self.supplements  # else what stands beside it skips
        self._steps.begin(step, run_state.model)
        return detail if self._steps.stride is None else {**detail, "stride": self._steps.stride}

    def _is_allowed(self, run_state: RunState) -> bool:
        if not run_state.from_start or run_state.readings > self.within or run_state.has_learned:
            return False
        if self.even_if_trained:
            return True
        if not all(parameter.requires_grad for parameter in run_state.model.parameters()):
            return False
        first = run_state.snapshots.first_parameters() if run_state.snapshots is not None else {}
        return not looks_trained(run_state.model, first)

    def note(self, step: OptimizerStep, is_well: bool) -> None:
        """Note how far the latest step has moved the weights."""
        self._steps.note(step.reading)

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the first step after the initialisation, whose gradients are of the old weights; limit later ones."""
        if self._skip_next:
            self._skip_next = False
            step.skip()
            return True
        return self._steps.act(step)

    def state_dict(self) -> dict[str, Any]:
        """Return whether it is done, and how it limits the steps."""
        return {"done": self._done, "skip_next": self._skip_next, "steps": self._steps.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._done, self._skip_next = state["done"], state["skip_next"]
        self._steps.load_state_dict(state["steps"])


def _is_at_the_start(run_state: RunState) -> bool:
    """True if another remedy has gone back to there in this step."""
    return isinstance(run_state.restarted_from, Mapping) and bool(run_state.restarted_from["first"])


def _were_poor(found: Mapping[str, Any] | None, model: nn.Module) -> bool:
    """True if the old weights, as measured, let signal or error through poorly, and the new ones are better."""
    limit = TWOFOLD if any(isinstance(module, nn.RNNBase) for module in model.modules()) else WELL
    return found is not None and found["measured"] and found.get("spread_before", math.inf) > limit


def _replay(run_state: RunState) -> Callable[[], Tensor] | None:
    """How to run the batch again; a compiled model has no layers that hooks could see."""
    return None if has_compiled_part(run_state.model) else run_state.batch.replay


@torch.no_grad()
def _agreed(model: nn.Module, detail: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the first process has come to, on all of them: each has seen a batch of its own."""
    if is_alone():
        return detail
    for parameter in model.parameters():
        torch.distributed.broadcast(parameter.data, 0)
    told = [detail]
    torch.distributed.broadcast_object_list(told, 0)
    return told[0]


def initialise(
    model: nn.Module, scheme: Scheme, replay: Callable[[], Tensor] | None, is_chaotic: bool = False
) -> dict[str, Any] | None:
    """Initialise a model in place, and say with what; None if it is no better than before by what was measured.

    Args:
        model: Has weights that look fresh.
        scheme: See :class:`Reinitialize`.
        replay: Computes the loss of a batch.
        is_chaotic: What is wrong shows in no spread: it is enough that the new weights let signal and error through.
    """
    before = examine(model, replay)
    activation = before.structure.activation or _functional(before)
    if replay is None or not before.layers:
        start_again(model, "orthogonal" if scheme == "lsuv" else scheme, activation)
        return {"scheme": scheme, "measured": False}
    ends = _ends(model, replay)
    best: tuple[float, list[Tensor], float] | None = None
    read = _read(model, replay)
    original = [parameter.detach().clone() for parameter in model.parameters()]
    looks_linear = scheme == "lsuv" and not ends and activation in MIRRORED and before.structure.depth >= 5
    is_bounded = activation in ("Tanh", "Softsign", "Hardtanh") and scheme == "lsuv"
    # Each pass may hold collectives: replicas must all run the same number of them.
    for size in SIZES if is_bounded and is_alone() else SIZES[:1]:
        _put(model, original)
        start_again(model, scheme, activation, read)
        if scheme == "lsuv":
            draft = Draft(model, activation, ends, size)
            if looks_linear:
                mirror(draft, [name for name in before.layers if name in draft.layers()], replay)
            apply(draft, measure(draft, replay))
        found = spread(examine(model, replay))
        if best is None or found < best[0]:
            best = found, [parameter.detach().clone() for parameter in model.parameters()], size
        if found <= WELL:
            break
    assert best is not None
    was = spread(before)
    if not best[0] < (WELL if is_chaotic else was):
        _put(model, original)
        return None
    _put(model, best[1])
    detail = {"scheme": scheme, "measured": True, "spread_before": was, "spread": best[0], "size": best[2]}
    return {key: value for key, value in detail.items() if not isinstance(value, float) or math.isfinite(value)}


def spread(flow: Flow) -> float:
    """Powers of ten between the largest and the smallest error, or signal, over the layers; infinite if one is lost."""
    if not math.isfinite(flow.loss) or not flow.error or flow.through_time == 0:
        return math.inf
    sizes = [flow.error, flow.signal[:-1]]
    found = [abs(math.log10(flow.through_time))] if flow.through_time > 0 else []
    for values in sizes:
        known = [value for value in values if math.isfinite(value) and value > 0]
        if len(known) < len(values):
            return math.inf
        found.append(math.log10(max(known) / min(known)) if known else 0.0)
    return max(found)


def _functional(flow: Flow) -> str:
    kinds = [activity.kind for activity in flow.activities.values()]
    return max(kinds, key=kinds.count, default="")


def _ends(model: nn.Module, replay: Callable[[], Tensor]) -> dict[int, float]:
    """Sizes for the outputs of the layers that end a residual branch, by the id of their weight."""
    try:
        with undisturbed(model):
            ends = branch_ends(replay())
    except Exception:  # the user's code
        return {}
    return {id(weight): 1 / math.sqrt(len(ends)) for weight in ends}


def _read(model: nn.Module, replay: Callable[[], Tensor]) -> dict[nn.Module, Sequences]:
    """What each recurrent layer reads on the batch; nothing is known of packed sequences."""
    found: dict[nn.Module, Sequences] = {}

    def note(module: nn.RNNBase, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 3 and inputs[0].is_floating_point():
            size = float(inputs[0].detach().double().square().mean().sqrt())
            length = inputs[0].shape[1 if module.batch_first else 0]
            found[module] = Sequences(length, size if math.isfinite(size) and size > 0 else 1.0)

    recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    if recurrent:
        with undisturbed(model):
            handles = [module.register_forward_pre_hook(note) for module in recurrent]
            try:
                replay()
            finally:
                for handle in handles:
                    handle.remove()
    return found


@torch.no_grad()
def _put(model: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)
