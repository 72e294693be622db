"""Initialisation of recurrent layers that remember for as long as a sequence is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.treatment.remedies._support.weight_fill import refill

_TRIED = (
    "measured: the best of a few on the temporal order problem over 40 to 120 steps and on digits read pixel by pixel, "
    "under four optimizers"
)


@dataclass(frozen=True)
class RecurrentInitThresholds(Thresholds):
    """The numbers of :func:`initialise_recurrent`."""

    state_size: float = threshold(
        0.2,
        "root mean square of a plain recurrence's states at a sequence's end: tanh is linear for small ones, and "
        "forgets others",
        unit="1",
        source=_TRIED,
    )
    gate_input_size: float = threshold(
        0.7,
        "root mean square of what the gates and candidates of a gated cell get from its inputs",
        unit="1",
        source=_TRIED,
    )
    largest_angle: float = threshold(
        math.pi / 4,
        "largest angle by which a plain recurrence turns its states at each step",
        unit="radians",
        source=_TRIED,
    )


LIMITS = RecurrentInitThresholds()

# The parts of a gated cell's weights and biases, in their order.
_LSTM = ("input gate", "forget gate", "candidate", "output gate")
_GRU = ("reset gate", "update gate", "candidate")
_PARTS = {"LSTM": _LSTM, "LSTMCell": _LSTM, "GRU": _GRU, "GRUCell": _GRU}


@dataclass(frozen=True)
class Sequences:
    """What a recurrent layer reads.

    Attributes:
        length: Steps of a sequence.
        size: Root mean square of the entries.
    """

    length: int = 2
    size: float = 1.0


def initialise_recurrent(module: nn.Module, seed: int, read: Sequences) -> None:
    """Initialise a recurrent layer or cell in place, so that it remembers for as long as the sequence is.

    A plain recurrence turns pairs of its units by angles from 0 to ``largest_angle``: lengths are kept, and slow turns
    keep what slow features need (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences", sec.
    3.2 and 3.4). Its inputs are so small that its states, sums of them, have the size ``state_size`` at the end.

    The forget gates' biases of a gated cell are spread so that the units remember for 1 to as many steps as the
    sequence has (Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", sec. 2.2). For that the gates
    must not depend on the states as yet: their recurrent weights start at zero, only the candidates' are orthogonal.
    """
    kinds = _PARTS.get(type(module).__name__, ("state",))
    is_gated = len(kinds) > 1
    drive = LIMITS.gate_input_size if is_gated else LIMITS.state_size / math.sqrt(read.length)
    for name, parameter in module.named_parameters(recurse=False):
        parts = parameter.chunk(len(kinds))
        if parameter.ndim < 2:
            parameter.zero_()
            if is_gated and name.startswith("bias_ih"):
                _spread_spans(dict(zip(kinds, parts, strict=False)), read.length)
        elif name.startswith("weight_ih"):
            is_first = not re.search(r"_l[1-9]", name)
            size = read.size if is_first else LIMITS.state_size  # upper layers read states
            for part in parts:
                refill(part, "xavier", 1.0, seed)
                rms = max(float(part.square().mean().sqrt()), torch.finfo(torch.float32).tiny)
                part.mul_(drive / (size * math.sqrt(part.shape[1]) * rms))
        elif not is_gated and parameter.shape[0] == parameter.shape[1]:
            # Rectified states cannot turn; they stay as they are (IRNN: Le, Jaitly & Hinton 2015).
            rectifies = getattr(module, "nonlinearity", "") == "relu"
            parameter.copy_(_turns(len(parameter), 0.0 if rectifies else LIMITS.largest_angle))
        else:
            for kind, part in zip(kinds, parts, strict=False):
                if kind.endswith("gate") and name.startswith("weight_hh"):
                    part.zero_()
                else:
                    refill(part, "orthogonal", 1.0, seed)


def _spread_spans(biases: dict[str, Tensor], length: int) -> None:
    """Let the units of a gated cell remember for 1 to ``length`` steps, by their biases."""
    keeps = biases["forget gate"] if "forget gate" in biases else biases["update gate"]
    spans = torch.linspace(1.0, max(2.0, length - 1.0), len(keeps)).to(keeps)
    keeps.copy_(spans.log())
    if "input gate" in biases:
        biases["input gate"].copy_(-spans.log())


def _turns(units: int, largest: float) -> Tensor:
    """A matrix that turns pairs of units by angles from 0 to ``largest``, shape ``(units, units)``."""
    angles = torch.linspace(0.0, largest, units // 2)
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=1).view(-1, 2, 2)
    made: Tensor = torch.block_diag(*turns, *torch.ones(units % 2, 1, 1))  # type: ignore[no-untyped-call]
    return made
