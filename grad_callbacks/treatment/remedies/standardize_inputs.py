"""Train on raw inputs as if they were standardised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import QuietBlock
from grad_callbacks.treatment.remedies._support.agreement import from_all
from grad_callbacks.treatment.remedies._support.raw_inputs import (
    RawInput,
    begin_standardised,
    raw_inputs,
    standardised_gradients,
)
from grad_callbacks.treatment.remedies._support.replayed_loss import can_be_replayed, replayed_loss
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies._support.trained_weights import trained_layers
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState


class StandardizeInputs(SkipNext, Remedy):
    """Trains the layers that take the batch in as if each feature had mean 0 and variance 1.

    The inputs stay as they are, and so does the model: it needs no scaler in front of it afterwards. A layer's
    ``y = W x + b`` on raw inputs is the same function as ``y = W' z + b'`` on standardised ones. Its weights begin anew
    as those that the run began with would have on ``z``, and each gradient is changed so that SGD, with momentum, takes
    the very steps that it would have taken there (LeCun et al. 1998, "Efficient BackProp", sec. 4.3: the condition of
    the problem is that of the inputs' covariance). Mean and deviation are those of the batch at hand. Without a bias,
    and in convolutions, inputs are divided only.

    It acts where a run was watched from its first step on, nothing has been learned, and the weights look freshly
    drawn. It is kept only if the loss of the batch is smaller with it. The current step is skipped. SGD only: an
    adaptive optimizer undoes any scale of a gradient. Layers are ``nn.Linear``, recurrent ones and convolutions that
    take in a tensor of the batch, behind views and casts at most; compiled and sharded models are left alone.

    Attributes:
        inputs: The layers, and the statistics of what they take in.
    """

    changes_gradients = True
    changes_weights = True
    begins_anew = True
    acts_at_start = True
    may_reach_start = True
    needs_snapshots = True

    def __init__(self) -> None:
        self.inputs: list[RawInput] = []

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Begin anew on standardised inputs; None where that does not apply or does not help. Once only."""
        run_state = step.run_state
        if self.inputs or run_state is None or step.plan.reach is None or not _may_begin_anew(step, run_state):
            return None
        assert run_state.batch.replay is not None
        if step.snapshots is not None and step.snapshots.first is not None and run_state.readings > 1:
            step.snapshots.restore(step.snapshots.first)
        kept = [parameter.detach().clone() for parameter in run_state.model.parameters()]
        before = replayed_loss(run_state)
        inputs: list[RawInput] = from_all(raw_inputs(run_state.model, run_state.batch.content, run_state.batch.replay))[
            0
        ]
        begin_standardised(run_state.model, inputs)
        after = replayed_loss(run_state)
        if not inputs or not math.isfinite(after) or after >= before:
            for parameter, value in zip(run_state.model.parameters(), kept, strict=True):
                parameter.data.copy_(value)
            return None
        self.inputs, self.takes_own_steps = inputs, True
        run_state.restarted_from = "start"
        self.skip_next_step()
        largest = max(max(map(abs, (*entry.mean, *entry.scale))) for entry in inputs)
        return {"layers": ", ".join(entry.weight.rpartition(".")[0] for entry in inputs), "largest": largest}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Change the gradients of those layers."""
        if self._skips(step):
            return True
        if not self.inputs or step.is_taken or step.run_state is None:
            return False
        named = dict(step.run_state.model.named_parameters())
        places = {id(parameter): place for place, parameter in enumerate(step.layers.parameters)}
        gradients = step.gradients()
        values: list[Tensor | None] = [None] * len(gradients)
        for entry in self.inputs:
            weight = places.get(id(named[entry.weight]))
            bias = None if entry.bias is None else places.get(id(named[entry.bias]))
            if weight is None or (gradient := gradients[weight]) is None:
                continue
            of_bias = None if bias is None else gradients[bias]
            values[weight], new = standardised_gradients(entry, gradient, of_bias)
            if bias is not None:
                values[bias] = new
        return step.replace(values)

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return 0 if self.inputs or self._skip_next else LEEWAY.any

    def take_in(self, block: QuietBlock, is_left_out: bool) -> None:
        """Nothing is kept of steps while it is off."""

    def state_dict(self) -> dict[str, Any]:
        """Return the layers and their statistics."""
        return {"inputs": [asdict(entry) for entry in self.inputs], "skip_next": self._skip_next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.inputs = [
            RawInput(entry["weight"], entry["bias"], tuple(entry["mean"]), tuple(entry["scale"]))
            for entry in state["inputs"]
        ]
        self.takes_own_steps, self._skip_next = bool(self.inputs), state["skip_next"]


def _may_begin_anew(step: OptimizerStep, run_state: RunState) -> bool:
    if step.layers.sharding is not None or not can_be_replayed(run_state):
        return False
    if not run_state.from_start or run_state.has_learned:
        return False
    first = run_state.snapshots.first_parameters() if run_state.snapshots is not None else {}
    return bool(first or run_state.readings == 1) and not trained_layers(run_state.model, first)
