"""Initialise a model and measure whether signal and error pass through it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.model_structure import branch_ends
from grad_callbacks.detection.diagnosis.signal_flow import Flow, examine
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.fresh_weights import start_again
from grad_callbacks.treatment.remedies._support.lsuv import Draft, apply, measure
from grad_callbacks.treatment.remedies._support.mirrored_layers import mirror
from grad_callbacks.treatment.remedies._support.recurrent_init import Sequences
from grad_callbacks.treatment.remedies._support.weight_fill import Scheme


@dataclass(frozen=True)
class InitialisationThresholds(Thresholds):
    """The numbers of :func:`initialise`."""

    good_spread: float = threshold(
        1.0,
        "spread of signal or error over the layers up to which nothing needs to be better",
        unit="powers of ten",
        source="not measured",
    )


LIMITS = InitialisationThresholds()

MIRRORED = ("ReLU", "LeakyReLU", "PReLU", "GELU", "SiLU")  # f(z) - f(-z) is a multiple of z

_SEQUENCE = ("batch", "step", "feature")  # dimensions of what recurrent layers read, the first two in either order


def initialise(
    model: nn.Module, scheme: Scheme, replay: Callable[[], Tensor] | None, is_chaotic: bool = False
) -> dict[str, Any] | None:
    """Initialise a model in place, and return with what; None if it is no better than before by what was measured.

    Args:
        model: Has weights that look fresh.
        scheme: See :class:`~grad_callbacks.Reinitialize`.
        replay: Computes the loss of a batch.
        is_chaotic: What is wrong shows in no spread: it is enough that the new weights let signal and error through.
    """
    before = examine(model, replay)
    activation = before.structure.activation or _functional(before)
    if replay is None or not before.layers:
        start_again(model, "orthogonal" if scheme == "lsuv" else scheme, activation)
        return {"scheme": scheme, "measured": False}
    ends = _ends(model, replay)
    original = [parameter.detach().clone() for parameter in model.parameters()]
    start_again(model, scheme, activation, _read(model, replay))
    if scheme == "lsuv":
        draft = Draft(model, activation, ends)
        if activation in MIRRORED and not ends:
            mirror(draft, [name for name in before.layers if name in draft.layers()], replay)
        apply(draft, measure(draft, replay))
    was, found = spread(before), spread(examine(model, replay))
    if not found < (LIMITS.good_spread if is_chaotic else was):
        put_weights(model, original)
        return None
    detail = {"scheme": scheme, "measured": True, "spread_before": was, "spread": found}
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


@torch.no_grad()
def put_weights(model: nn.Module, values: list[Tensor]) -> None:
    """Put values into a model's parameters, in their order."""
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)


def _functional(flow: Flow) -> str:
    """The activation that is seen most often where no module is one."""
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
        sequence = inputs[0] if inputs else None
        if isinstance(sequence, Tensor) and sequence.ndim == len(_SEQUENCE) and sequence.is_floating_point():
            size = float(sequence.detach().double().square().mean().sqrt())
            length = sequence.shape[1 if module.batch_first else 0]
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
