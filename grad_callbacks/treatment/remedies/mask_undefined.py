"""Go on learning where an operation has no derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks.events import Evidence
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.measurement.sharding import is_alone
from grad_callbacks.treatment.remedies._support.eval_mode_output import undefined_in_training
from grad_callbacks.treatment.remedies._support.forward_masks import (
    IN_EVALUATION,
    Bounds,
    ForwardMasks,
    told,
    undefined_places,
)
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState

MOST = 8  # kinds of operations, and places, that are masked in a run: where there are more, it is not the operations

# What adds up over weights or activations is not finite only because what went into it was not. To mask it would take
# away a weight's whole gradient.
_SUMS: tuple[str, ...] = (
    "mm",
    "mv",
    "conv",
    "linear",
    "attention",
    "batchnorm",
    "layernorm",
    "groupnorm",
    "rnn",
    "lstm",
    "gru",
    "embed",
)
_SUMS += ("compiled",)  # many operations in one


class MaskUndefined(Remedy):
    """Takes zero for an undefined derivative, a finite value for an undefined result, and the rest is learned.

    A term of the loss that divides by zero, or takes the root or the log of zero, makes the whole gradient NaN in every
    batch, and skipping would mean to learn nothing any more. The operations to blame are found by running the batch
    again; from the next step on what is not finite in their derivatives is zero. All finite numbers stay the same to
    the bit, and the loss stays what it is, NaN perhaps. The alert's step is skipped, and so is any step that is not
    finite in spite of the mask.

    Where an operation inside the model makes NaN or infinities in the forward pass, as the root of a negative number
    does, they are replaced too, behind the module or before the next one, in training and in evaluation: by what a
    module without submodules gives in evaluation if it makes them in training only, as noise may, by a bound otherwise
    (``ForwardMasks``). Loss and gradients must be finite then. The hooks
    are gone after the training: mend the operation before the model is used elsewhere.

    It is not switched on if numbers are still not finite where weights and activations meet, or if data, weights or an
    overflow are to blame: then there is nothing left to learn from.
    Reference: Bolte & Pauwels 2020, "A mathematical model for automatic differentiation in machine learning": what is
    taken for a derivative where there is none is a convention, such as zero for a ReLU at 0.

    Attributes:
        operations: Names of autograd's nodes that are masked, such as ``"SqrtBackward0"``.
    """

    skips_nonfinite = True

    def __init__(self) -> None:
        self.operations: list[str] = []
        self._forward = ForwardMasks()
        self._skip_this = False
        self._masked: list[Tensor] = []  # of the backward passes since the last step

    @property
    def places(self) -> dict[str, Bounds]:
        """Bounds in the forward pass, by places such as ``"output of encoder.2"`` or ``"input of head"``."""
        return self._forward.places

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Find the operations and mask them from the next step on; None if that would not make the gradient finite."""
        run_state = step.run_state
        if run_state is None or step.reading.is_finite or step.layers.sharding is not None:
            return None
        before = self.places
        found = self._mask_forward(run_state)
        if found is None:
            found = _agreed(undefined_operations(run_state.model, run_state.batch.replay))
        new = [name for name in found or () if name not in self.operations]
        is_too_much = len(self.operations) + len(new) + len(self.places) > MOST
        if is_too_much:
            self._put(before, run_state)
        if is_too_much or (not new and self.places == before):
            return None
        self.operations += new
        self._skip_this = not step.is_taken
        masked = {"operations": ", ".join(self.operations), "places": told(self.places)}
        return {name: text for name, text in masked.items() if text} | {"nonfinite_parameters": step.reading.nonfinite}

    def _mask_forward(self, run_state: RunState) -> list[str] | None:
        """Mask the places that need it; return the operations to mask with them, None if that would not do.

        What a module gives in evaluation comes before any bound.
        """
        before = self.places
        names = undefined_in_training(run_state.model, run_state.batch.replay)
        in_evaluation = _agreed_places({f"output of {name}": IN_EVALUATION for name in names})
        for replaced in [in_evaluation, {}] if in_evaluation else [{}]:
            self._set(before | replaced, run_state)
            bounded = _agreed_places(undefined_places(run_state.model, run_state.batch.replay))
            found = None if bounded is None else self._mask_what_needs_it(before, replaced | bounded, run_state)
            if found is not None:
                return found
        self._set(before, run_state)
        return None

    def _mask_what_needs_it(
        self, before: dict[str, Bounds], places: dict[str, Bounds], run_state: RunState
    ) -> list[str] | None:
        """Mask places besides those before, but none whose infinities do no harm, such as those of an attention mask.

        The last place is the first to be tried without: it also masks what comes from earlier ones.
        """
        found = self._put(before | places, run_state) if places else None
        for place in reversed(places if found is not None else {}):
            kept = self.places
            without = self._put({other: kept[other] for other in kept if other != place}, run_state)
            if without is None:
                self._set(kept, run_state)
            else:
                found = without
        return found

    def _set(self, places: dict[str, Bounds], run_state: RunState) -> None:
        self._forward.places = places
        self._forward.attach(run_state.model)

    def _put(self, places: dict[str, Bounds], run_state: RunState) -> list[str] | None:
        """Mask these places, and name the operations that loss and gradients are finite with; None if they are not."""
        self._set(places, run_state)
        return _agreed(undefined_operations(run_state.model, run_state.batch.replay, needs_finite_loss=True))

    def attach(self, model: nn.Module) -> None:
        """Put the masks of the forward pass on a model."""
        self._forward.attach(model)

    def detach(self) -> None:
        """Take them away."""
        self._forward.detach()

    def before_backward(self, loss: Tensor) -> None:
        """Put the masks into the graph of a loss."""
        if self.operations:
            for node in _nodes(loss):
                if node.name() in self.operations:
                    node.register_hook(partial(_mask, self._masked))

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the alert's step, and what is not finite in spite of the masks; tell whether anything was done."""
        masked = [*self._masked, *self._forward.masked]
        self._masked.clear()
        self._forward.masked.clear()
        if self._skip_this:
            self._skip_this = False
            step.skip()
            return True
        if not self.operations and not self.places:
            return False
        acted = step.skip_if_nonfinite()
        for flag in masked:
            acted = acted | flag.to(acted.device, non_blocking=True)
        return acted

    def release(self, step: OptimizerStep) -> bool:
        """Mask nothing any more; an alert switches it on again."""
        was_on = bool(self.operations or self.places)
        self.detach()
        self.operations, self._forward.places = [], {}
        return was_on

    def state_dict(self) -> dict[str, Any]:
        """Return what is masked."""
        return {
            "operations": list(self.operations),
            "places": dict(self.places),
            "skip_this": self._skip_this,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; :meth:`attach` follows."""
        self.operations, self._skip_this = list(state["operations"]), state["skip_this"]
        self._forward.places = dict(state["places"])


def undefined_operations(
    model: nn.Module, replay: Callable[[], Tensor] | None, needs_finite_loss: bool = False
) -> list[str] | None:
    """Run a batch again and name the operations whose derivative is not finite, though what came to them was.

    Leaves no trace.

    Args:
        model: The model.
        replay: Computes the loss of the batch.
        needs_finite_loss: Masking will not do if the loss is not finite.

    Returns:
        The names of autograd's nodes, an empty list if all is finite; None if masking them would not do.
    """
    if replay is None:
        return None
    names: dict[str, None] = {}
    try:
        with undisturbed(model):
            loss = replay()
            for node in _nodes(loss):
                node.register_hook(partial(_look, names, node.name()))
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    except Exception:  # the user's code
        return None
    known = [gradient for gradient in gradients if gradient is not None]
    is_learning = any(bool(gradient.any()) for gradient in known)
    if needs_finite_loss and not bool(torch.isfinite(loss).all()):
        return None
    if not is_learning or any(part in name.lower() for name in names for part in _SUMS):
        return None
    return list(names)


def _agreed(operations: list[str] | None) -> list[str] | None:
    """What all processes have found together: each has seen a batch of its own. None if one of them gives up."""
    found = _agreed_places(None if operations is None else {name: [] for name in operations})
    return None if found is None else list(found)


def _agreed_places(places: dict[str, Bounds] | None) -> dict[str, Bounds] | None:
    """The same of places; where several have found one, what the first of them would put there."""
    if is_alone():
        return places
    each: list[dict[str, Bounds] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(each, places)
    together: dict[str, Bounds] = {}
    for found in each:
        if found is None:
            return None
        together |= {place: bounds for place, bounds in found.items() if place not in together}
    return together


def _nodes(loss: Tensor) -> Iterator[Any]:
    """Walk over the operations in the graph of a loss, each once; its leaves outlive the graph, and so would hooks."""
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = {None}
    while waiting:
        node = waiting.pop()
        if node not in seen and node.next_functions:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]


def _mask(masked: list[Tensor], grad_inputs: tuple[Any, ...], grad_outputs: object) -> tuple[Any, ...]:
    """Replace what is not finite by zero, and note whether there was any, without waiting for the device."""
    kept = []
    for gradient in grad_inputs:
        if not isinstance(gradient, Tensor) or gradient.layout is not torch.strided:
            kept.append(gradient)
            continue
        is_good = torch.isfinite(gradient)
        masked.append(~is_good.all())
        kept.append(gradient.where(is_good, torch.zeros_like(gradient)))
    return tuple(kept)


def _look(names: dict[str, None], name: str, grad_inputs: tuple[Any, ...], grad_outputs: object) -> tuple[Any, ...]:
    """Mask a node's derivative, and note its name if that has changed anything."""
    flags: list[Tensor] = []
    kept = _mask(flags, grad_inputs, grad_outputs)
    if any(flags):
        names[name] = None
    return kept
