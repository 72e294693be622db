"""Logits instead of probabilities in front of a cross entropy."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup

SQUASHING = ("softmax", "sigmoid", "relu", "tanh")  # of torch, of tensors and of torch.nn.functional
STEPS = ("training_step", "validation_step")


class Logits(Cure):
    """Gives a cross entropy what went into the softmax, sigmoid, tanh or ReLU in front of it.

    Within the steps alone, so that the module's outputs stay what they are.
    """

    slot: ClassVar[str] = "output"
    name = "Logits"

    def applies(self, ill: Attempt) -> bool:
        """True if a cross entropy is taken of an activation's output."""
        return ill.inspection.classes > 0 and ill.inspection.output_activation.lower() in SQUASHING

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Wrap the steps."""
        for name in STEPS:
            step = getattr(setup.module, name)
            setattr(setup.module, name, _with_logits(step))
        return [f"no {known.output_activation} in front of `cross_entropy`, which takes logits"]


def _with_logits(step: Any) -> Any:
    @functools.wraps(step)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _TakeLogits():
            return step(*args, **kwargs)

    return wrapped


class _TakeLogits(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}  # by the output's id: it, and what went in

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func in (nn.functional.cross_entropy, torch.nn.functional.cross_entropy):
            given = args[0] if args else kwargs.get("input")
            if id(given) in self._before:
                logits = self._before[id(given)][1]
                args, kwargs = ((logits, *args[1:]), kwargs) if args else (args, {**kwargs, "input": logits})
        made = func(*args, **kwargs)
        if name in SQUASHING and isinstance(made, Tensor) and args and isinstance(args[0], Tensor):
            self._before[id(made)] = (made, args[0])  # held, so that no other tensor gets its id
        return made
