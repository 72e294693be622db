"""Go on learning where an operation has no derivative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies._support.agreement import agreed
from grad_callbacks.treatment.remedies._support.eval_mode_output import undefined_in_training
from grad_callbacks.treatment.remedies._support.forward_masks import (
    IN_EVALUATION,
    Bounds,
    ForwardMasks,
    described,
    undefined_places,
)
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies._support.undefined_operations import mask, nodes, undefined_operations
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState


@dataclass(frozen=True)
class MaskUndefinedThresholds(Thresholds):
    """The numbers of :class:`MaskUndefined`."""

    most_masked: int = threshold(
        8,
        "operations and places that are masked in a run, and modules that are kept in float32 one by one: where there "
        "are more, they are not the cause",
        unit="operations, places or modules",
        source="not measured",
    )


LIMITS = MaskUndefinedThresholds()


class MaskUndefined(SkipNext, Remedy):
    """Replaces undefined derivatives by zero and undefined activations by a finite value, so training continues.

    A term of the loss that divides by zero, or takes the root or the log of zero, makes the whole gradient NaN in every
    batch, and with every step skipped nothing would be learned. The operations that are the cause are found by running
    the batch again; from the next step on entries of their derivatives that are not finite are zero. All finite numbers
    stay the same to the bit, and the loss is not changed: it may stay NaN. The step that raised the alert is skipped,
    and so is any step that is not finite in spite of the mask.

    Where an operation inside the model makes NaN or infinities in the forward pass, as the root of a negative number
    does, they are replaced too, behind the module or before the next one, in training and in evaluation: by the output
    of a module without submodules in evaluation if it makes them in training only, as noise may, by a bound otherwise
    (``ForwardMasks``). Loss and gradients must be finite then. The hooks are removed after the training: correct the
    operation before the model is used elsewhere.

    It is not switched on if numbers are still not finite where weights and activations meet, or if data, weights or an
    overflow are the cause: then there is nothing left to learn from.
    Reference: Bolte & Pauwels 2020, "A mathematical model for automatic differentiation in machine learning": the value
    of a derivative where there is none is a convention, such as zero for a ReLU at 0.

    Attributes:
        operations: Names of autograd's nodes that are masked, such as ``"SqrtBackward0"``.
    """

    skips_nonfinite = True

    def __init__(self) -> None:
        self.operations: list[str] = []
        self._forward = ForwardMasks()
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
            found = _agreed_operations(undefined_operations(run_state.model, run_state.batch.replay))
        new = [name for name in found or () if name not in self.operations]
        is_too_much = len(self.operations) + len(new) + len(self.places) > LIMITS.most_masked
        if is_too_much:
            self._put(before, run_state)
        if is_too_much or (not new and self.places == before):
            return None
        self.operations += new
        self.skip_next_step(not step.is_taken)
        masked = {"operations": ", ".join(self.operations), "places": described(self.places)}
        return {name: text for name, text in masked.items() if text} | {"nonfinite_parameters": step.reading.nonfinite}

    def _mask_forward(self, run_state: RunState) -> list[str] | None:
        """Mask the places that need it; return the operations to mask with them, None if that would not help.

        A module's output in evaluation is tried before any bound.
        """
        before = self.places
        names = undefined_in_training(run_state.model, run_state.batch.replay)
        in_evaluation = agreed({f"output of {name}": IN_EVALUATION for name in names}, _together)
        for replaced in [in_evaluation, {}] if in_evaluation else [{}]:
            self._set(before | replaced, run_state)
            bounded = agreed(undefined_places(run_state.model, run_state.batch.replay), _together)
            found = None if bounded is None else self._mask_what_needs_it(before, replaced | bounded, run_state)
            if found is not None:
                return found
        self._set(before, run_state)
        return None

    def _mask_what_needs_it(
        self, before: dict[str, Bounds], places: dict[str, Bounds], run_state: RunState
    ) -> list[str] | None:
        """Mask places besides those before, but none whose infinities do no harm, such as those of an attention mask.

        The last place is the first to be left out: it also masks what comes from earlier ones.
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
        """Mask these places; return the operations to mask for finite loss and gradients, None if they cannot be."""
        self._set(places, run_state)
        return _agreed_operations(undefined_operations(run_state.model, run_state.batch.replay, needs_finite_loss=True))

    def attach(self, model: nn.Module) -> None:
        """Put the masks of the forward pass on a model."""
        self._forward.attach(model)

    def detach(self) -> None:
        """Remove them."""
        self._forward.detach()

    def before_backward(self, loss: Tensor) -> None:
        """Put the masks into the graph of a loss."""
        if self.operations:
            for node in nodes(loss):
                if node.name() in self.operations:
                    node.register_hook(partial(mask, self._masked))

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the step that raised the alert, and any that is not finite; return whether anything was done."""
        masked = [*self._masked, *self._forward.masked]
        self._masked.clear()
        self._forward.masked.clear()
        if self._skips(step):
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

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if not self.operations and not self.places and not self._masked and not self._skip_next else 0

    def state_dict(self) -> dict[str, Any]:
        """Return what is masked."""
        return {"operations": list(self.operations), "places": dict(self.places), "skip_this": self._skip_next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; :meth:`attach` follows."""
        self.operations, self._skip_next = list(state["operations"]), state["skip_this"]
        self._forward.places = dict(state["places"])


def _agreed_operations(operations: list[str] | None) -> list[str] | None:
    """The operations that all processes have found together; None if one of them gives up."""
    return agreed(operations, lambda each: list(dict.fromkeys(name for names in each for name in names)))


def _together(each: list[dict[str, Bounds]]) -> dict[str, Bounds]:
    """The places that all processes have found together; where several have found one, the bounds of the first."""
    together: dict[str, Bounds] = {}
    for places in each:
        together |= {place: bounds for place, bounds in places.items() if place not in together}
    return together
