"""How the error shrinks on its way back over the steps of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.compiled import has_compiled_part
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.depth_profile import DEPTH
from grad_callbacks.measurement.schedule import SCHEDULE
from grad_callbacks.measurement.sharding import local


@dataclass(frozen=True)
class RecurrenceThresholds(Thresholds):
    """Thresholds of the measurement of recurrent layers."""

    squarings: int = threshold(
        10,
        "a recurrent weight is squared so often: its 1024th power shows the spectral radius within a percent",
        unit="squarings",
        source="Gelfand's formula",
    )
    side: int = threshold(
        1024,
        "the spectral radius of a larger recurrent weight is not computed: it would take too long",
        unit="rows",
        source="not measured",
    )


RECURRENCE = RecurrenceThresholds()


class Recurrence:
    """Measures the gradient of the input of recurrent layers (``nn.RNN``, ``nn.LSTM``, ``nn.GRU``) at every time step.

    The gradient of a recurrent weight is a sum over time steps, in which the late ones hide that nothing comes from
    the early ones (Hochreiter 1991; Bengio et al. 1994). The gradient of the input shows each step alone.

    The hooks are there only for the passes that are measured, and never on a compiled model, which would be compiled
    again because of them. An input that needs no gradient is made to need one, which changes no other gradient.

    What the weights themselves would do to an error is known before the first step: its factor for a sequence
    of ``T`` steps is the spectral radius of a plain recurrence to the power of ``T``, as long as the states are small
    (Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", sec. 2.1).

    Args:
        model: Its recurrent layers are measured.
    """

    def __init__(self, model: nn.Module) -> None:
        is_left_out = has_compiled_part(model, in_place=True)
        self._recurrent = [] if is_left_out else [m for m in model.modules() if isinstance(m, nn.RNNBase)]
        self._handles: list[RemovableHandle] = []
        self._sizes: dict[nn.Module, Tensor] = {}  # for each time step the norm of the input's gradient
        self._powers: list[Tensor] | None = []  # of ten, by layer; None once they were returned
        self._readings = 0
        self._attach()

    def take(self) -> tuple[Tensor | None, Tensor | None]:
        """Return what was measured, two scalars; None for what was not. Called once a reading.

        The first is the gradient in the first third of the time steps over its largest one; of several layers the
        smallest ratio. The second is returned once: the powers of ten by which trainable weights of plain recurrences
        would multiply an error over a whole sequence; of several weights the largest.
        """
        ratios = [_early_to_late(sizes) for sizes in self._sizes.values()]
        self.pass_over(1)
        powers, self._powers = self._powers, None
        return torch.stack(ratios).amin() if ratios else None, torch.stack(powers).amax() if powers else None

    @property
    def until_due(self) -> int | None:
        """How many readings come before one that is measured; None if none ever is."""
        if not self._recurrent:
            return None
        return 0 if self._handles or self._powers else SCHEDULE.interval - self._readings % SCHEDULE.interval

    def pass_over(self, readings: int) -> None:
        """Count readings, and prepare for the next one."""
        self._readings += readings
        if self._readings < SCHEDULE.first or self._readings % SCHEDULE.interval == 0:
            self._attach()
        else:
            self.detach()

    def detach(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._sizes.clear()

    def _attach(self) -> None:
        self._sizes.clear()
        if not self._handles:
            self._handles = [module.register_forward_pre_hook(self._watch) for module in self._recurrent]

    def _watch(self, module: nn.RNNBase, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        sequence = inputs[0] if inputs else None
        if not isinstance(sequence, Tensor) or not _is_batched(sequence) or not torch.is_grad_enabled():
            return None  # packed, unbatched or by keyword: not measured
        if not sequence.is_floating_point():
            return None
        if not sequence.requires_grad:
            sequence = sequence.detach().requires_grad_()
        if self._powers is not None and isinstance(module, nn.RNN):
            steps = sequence.shape[1 if module.batch_first else 0]
            self._powers += [steps / math.log(10) * log_radius(weight) for weight in recurrent_weights(module)]
        sequence.register_hook(partial(self._note, module))  # type: ignore[no-untyped-call]
        return (sequence, *inputs[1:])

    def _note(self, module: nn.RNNBase, gradient: Tensor) -> None:
        others = (0, 2) if module.batch_first else (1, 2)
        self._sizes[module] = torch.linalg.vector_norm(gradient.detach().float(), dim=others).double()


def _is_batched(sequence: Tensor) -> bool:
    """True for (batch, time, features) or (time, batch, features)."""
    match sequence.shape:
        case (_, _, _):
            return True
    return False


def _early_to_late(sizes: Tensor) -> Tensor:
    early = sizes[: max(1, len(sizes) // DEPTH.parts)]
    return early.median() / sizes.amax()


def recurrent_weights(module: nn.RNN) -> list[Tensor]:
    """Return those that are trained, whole on this process and not too large."""
    weights = [weight for name, weight in module.named_parameters(recurse=False) if name.startswith("weight_hh")]
    side = module.hidden_size
    is_whole = [weight.shape == (side, side) and local(weight) is weight for weight in weights]
    return [
        w for w, whole in zip(weights, is_whole, strict=True) if whole and w.requires_grad and side <= RECURRENCE.side
    ]


@torch.no_grad()
def log_radius(weight: Tensor) -> Tensor:
    """Return the natural logarithm of the spectral radius of a square matrix, a scalar on its device.

    By Gelfand's formula, from the norms of high powers, which needs no eigenvalues and waits for no device. They grow
    with the radius up to a constant factor, which drops out between two of them. Minus infinity if they are zero.
    """
    power = weight.detach().double()
    before = now = torch.linalg.matrix_norm(power).log()  # of the power's norm
    for _ in range(RECURRENCE.squarings):
        power = power / torch.linalg.matrix_norm(power).clamp(min=torch.finfo(power.dtype).tiny)
        power = power @ power
        before, now = now, 2 * now + torch.linalg.matrix_norm(power).log()
    radius: Tensor = ((now - before) / 2 ** (RECURRENCE.squarings - 1)).where(now > -torch.inf, now)
    return radius
