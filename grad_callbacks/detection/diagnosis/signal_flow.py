"""Signal and error of a batch at every layer, measured by running it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.activations import ActivationProbe, Activity
from grad_callbacks.detection.diagnosis.model_structure import Structure
from grad_callbacks.measurement.depth_profile import DEPTH
from grad_callbacks.measurement.layer_order import owners
from grad_callbacks.measurement.replay import undisturbed

_SEQUENCE_AXES = ("batch", "time", "features")


@dataclass(frozen=True)
class FlowThresholds(Thresholds):
    """Numbers of the measurement of signal and error."""

    steps_to_target: int = threshold(
        8, "nodes of the graph, from the loss back, that are searched for a target", unit="nodes", source="not measured"
    )


LIMITS = FlowThresholds()


@dataclass(frozen=True)
class Flow:
    """Signal and error of one batch.

    Attributes:
        loss: Its loss; NaN without a replay.
        structure: How the model is built.
        activities: What each activation did, by module name.
        layers: The layers with a weight that were called as modules, in the order of execution.
        signal: Root mean square of each layer's output.
        error: Norm of the gradient at the output that one example would cause if the loss were its own: that of the
            batch times the root of its size. 0 where nothing comes back.
        through_time: For the recurrent layers, the input's gradient at the early steps over that at the late ones;
            the smallest of several, NaN where it was not measured.
        target: Root mean square of the targets of a squared error, NaN if there is none.
        inputs: Root mean square of what the first of the layers was given; NaN if not measured.
    """

    structure: Structure
    loss: float = math.nan
    activities: dict[str, Activity] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    signal: tuple[float, ...] = ()
    error: tuple[float, ...] = ()
    through_time: float = math.nan
    target: float = math.nan
    inputs: float = math.nan

    @property
    def growth(self) -> float:
        """The largest signal of the hidden layers over that of the first; NaN if not measured."""
        hidden = [value for value in self.signal[:-1] if value > 0]
        return max(hidden) / hidden[0] if len(hidden) >= 2 and math.isfinite(hidden[0]) else math.nan

    @property
    def output_error(self) -> float:
        """The error of an example at the model's output, about 1 for standardised targets and a mean loss."""
        return self.error[-1] if self.error else math.nan


def examine(model: nn.Module, replay: Callable[[], Tensor] | None) -> Flow:
    """Run the batch once forward and once backward and measure signal and error; leaves everything as it was.

    Without a replay, or where it fails, only the structure of the modules is known.
    """
    if replay is not None:
        try:
            with undisturbed(model):
                return _Watch(model).run(replay)
        except Exception:  # the user's code and memory: a diagnosis must not end a training
            pass
    return Flow(Structure.of(model))


class _Watch:
    """The hooks of one pass."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._layers: dict[str, tuple[Tensor, int]] = {}  # signal, batch size
        self._errors: dict[str, Tensor] = {}
        self._inputs: list[Tensor] = []  # size of what the first layer was given
        self._times: list[Tensor] = []
        self._sequences: list[Tensor] = []  # made to need a gradient
        self._handles: list[RemovableHandle] = []

    def run(self, replay: Callable[[], Tensor]) -> Flow:
        probe = ActivationProbe(self._model)
        probe.attach()
        for name, module in owners(self._model):
            if isinstance(module, (nn.RNN, nn.LSTM, nn.GRU)):
                self._handles.append(module.register_forward_pre_hook(self._watch_time))
            elif any(p.ndim >= 2 for p in module.parameters(recurse=False)) and not isinstance(module, nn.Embedding):
                self._handles.append(module.register_forward_hook(partial(self._watch_layer, name)))
        try:
            loss = replay()
            structure = Structure.of(self._model, loss)
            target = _target(loss)
            if loss.grad_fn is not None and bool(torch.isfinite(loss.detach()).all()):
                needed = [p for p in self._model.parameters() if p.requires_grad] + self._sequences
                torch.autograd.grad(loss, needed, allow_unused=True)
        finally:
            probe.detach()
            for handle in self._handles:
                handle.remove()
        names = tuple(self._layers)
        errors = [self._errors.get(name) for name in names]
        return Flow(
            structure=structure,
            loss=float(loss.detach()),
            activities=probe.read(),
            layers=names,
            signal=_to_host([signal for signal, _ in self._layers.values()]),
            error=_to_host([torch.zeros(()) if error is None else error for error in errors]),
            through_time=min(_to_host(self._times), default=math.nan),
            target=target,
            inputs=next(iter(_to_host(self._inputs)), math.nan),
        )

    def _watch_layer(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim == 0 or not output.numel():
            return
        if not self._inputs and isinstance(inputs, tuple) and inputs and isinstance(inputs[0], Tensor):
            self._inputs.append(inputs[0].detach().float().square().mean().sqrt())
        if name not in self._layers:  # of a layer that is used again the first use counts
            self._layers[name] = output.detach().float().square().mean().sqrt(), len(output)
            if output.requires_grad:
                output.register_hook(partial(self._note_error, name, len(output)))  # type: ignore[no-untyped-call]

    def _note_error(self, name: str, size: int, gradient: Tensor) -> None:
        self._errors[name] = torch.linalg.vector_norm(gradient.detach().float()) * math.sqrt(size)

    def _watch_time(self, module: nn.RNNBase, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        sequence = inputs[0] if inputs else None
        if not isinstance(sequence, Tensor) or sequence.ndim != len(_SEQUENCE_AXES) or not sequence.is_floating_point():
            return None
        if not sequence.requires_grad:
            sequence = sequence.detach().requires_grad_()
        if sequence.is_leaf:  # another hook may have made it need a gradient already
            self._sequences.append(sequence)
        sequence.register_hook(partial(self._note_time, (0, 2) if module.batch_first else (1, 2)))  # type: ignore[no-untyped-call]
        return (sequence, *inputs[1:])

    def _note_time(self, others: tuple[int, int], gradient: Tensor) -> None:
        sizes = torch.linalg.vector_norm(gradient.detach().float(), dim=others)
        third = max(1, len(sizes) // DEPTH.parts)
        self._times.append(sizes[:third].median() / sizes[-third:].amax().clamp_min(torch.finfo(torch.float32).tiny))


def _target(loss: Tensor) -> float:
    """Root mean square of what a squared or absolute error is taken against, read off the end of the graph."""
    node, steps = loss.grad_fn, 0
    while node is not None and steps < LIMITS.steps_to_target:
        if hasattr(node, "_saved_target") and (target := node._saved_target).is_floating_point():
            return float(target.detach().float().square().mean().sqrt())
        node = next((origin for origin, _ in node.next_functions if origin is not None), None)
        steps += 1
    return math.nan


def _to_host(values: Sequence[Tensor]) -> tuple[float, ...]:
    if not values:
        return ()
    return tuple(torch.stack([value.detach().double().cpu() for value in values]).tolist())
