"""What the first step of a training shows: layers, activations, optimizers, and what must not be touched."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.compiled import has_compiled_part
from grad_callbacks._utils.lightning import LightningModule, Trainer
from grad_callbacks.callbacks._base import Callback
from grad_callbacks.detection.diagnosis.activations import is_activation
from grad_callbacks.detection.diagnosis.model_structure import Structure, followers
from grad_callbacks.treatment.remedies._support.trained_weights import trained_layers

_CONV = nn.modules.conv._ConvNd
_LAYERS = (nn.Linear, _CONV, nn.RNNBase)
_INTEGERS = (torch.int8, torch.uint8, torch.qint8, torch.quint8)


@dataclass
class LayerFound:
    """A linear, convolution or recurrent layer.

    Attributes:
        name: In the module.
        kind: Its class.
        width: Features or channels of its output.
        dimensions: Of its output, batch included.
        calls: In the step.
        follows: Kinds of what is made of its output, by the graph.
        activation: Name of the activation module that is called next, if it gets what this layer gives; "" if none.
        keeps_shape: The output has the input's shape.
        reads_data: No weight was applied before it.
        input_size: Root mean square of its input.
        input_spread: The largest over the median size of its input's features; NaN if unknown.
    """

    name: str
    kind: str
    width: int
    dimensions: int
    calls: int = 1
    follows: tuple[str, ...] = ()
    activation: str = ""
    keeps_shape: bool = False
    reads_data: bool = False
    input_size: float = math.nan
    input_spread: float = math.nan


@dataclass
class OptimizerFound:
    """An optimizer: its class, the highest learning rate that it was given, and its eps (NaN without)."""

    kind: str
    lr: float
    eps: float = math.nan


@dataclass
class Inspection:
    """All that cures need to know, in plain values.

    Attributes:
        layers: In the order of their first calls.
        activations: Activation modules behind which other layers follow, by name their class.
        batch_size: Rows of the first batch.
        classes: Outputs that a cross entropy is taken of; 0 for other losses.
        output_activation: What stands between the last weights and the loss, by class name.
        optimizers: In the Trainer's order.
        is_manual: Manual optimization.
        is_recurrent: It has recurrent layers.
        precision: The Trainer's.
        clips: The Trainer's ``gradient_clip_val``; 0 without.
        trained: Layers whose weights look trained, and frozen ones, if there are more than chance explains.
        tied: Parameters that two modules share, by the names of both.
        compiled: Some part is compiled.
        quantised: Modules with integer weights.
    """

    layers: list[LayerFound] = field(default_factory=list)
    activations: dict[str, str] = field(default_factory=dict)
    batch_size: int = 0
    classes: int = 0
    output_activation: str = ""
    optimizers: list[OptimizerFound] = field(default_factory=list)
    is_manual: bool = False
    is_recurrent: bool = False
    precision: str = "32-true"
    clips: float = 0.0
    trained: list[str] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)
    compiled: bool = False
    quantised: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Inspection:
        """Rebuild from :meth:`to_dict`."""
        layers = [LayerFound(**{**one, "follows": tuple(one["follows"])}) for one in data["layers"]]
        return cls(**{**data, "layers": layers, "optimizers": [OptimizerFound(**one) for one in data["optimizers"]]})


class Inspector(Callback):
    """Fills an inspection in the first step, and changes nothing.

    Attributes:
        found: The inspection.
    """

    def __init__(self) -> None:
        self.found = Inspection()
        self._handles: list[RemovableHandle] = []
        self._nodes: dict[str, Any] = {}  # of the layers' outputs
        self._pending = ""  # the layer whose activation may come next
        self._active = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at weights and optimizers."""
        found = self.found
        found.is_manual = not pl_module.automatic_optimization
        found.precision, found.clips = str(trainer.precision), float(trainer.gradient_clip_val or 0.0)
        found.optimizers = [_optimizer(optimizer) for optimizer in trainer.optimizers]
        frozen = [name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad]
        found.trained = [*trained_layers(pl_module), *frozen]
        found.tied = list(_tied(pl_module))
        found.compiled = has_compiled_part(pl_module, in_place=True)
        found.quantised = [name for name, module in pl_module.named_modules() if _is_quantised(module)]
        found.is_recurrent = any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in pl_module.modules())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Watch the first step."""
        if trainer.global_step > 0 or batch_idx > 0 or self.found.compiled:
            return  # hooks would compile it again
        self._active = True
        for name, module in pl_module.named_modules():
            if isinstance(module, _LAYERS):
                self._handles.append(module.register_forward_hook(self._saw_layer(name)))
            elif is_activation(module):
                self._handles.append(module.register_forward_hook(self._saw_activation(name)))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Read the graph of the first loss."""
        if not self._active or loss.grad_fn is None:
            return
        with suppress(Exception):  # a graph of kinds that nobody has seen: less is known then
            after = followers(loss)
            for layer in self.found.layers:
                layer.follows = layer.follows or tuple(sorted(after.get(self._nodes.get(layer.name), ())))
            structure = Structure.of(pl_module, loss)
            self.found.output_activation = self.found.output_activation or structure.output_activation
            if structure.criterion == "LogSoftmax" and self.found.layers and not self.found.classes:
                self.found.classes = self.found.layers[-1].width

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._nodes, self._active = [], {}, False
        last = self.found.layers[-1].activation if self.found.layers else ""
        self.found.activations.pop(last, None)  # no layer follows

    def _saw_layer(self, name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not (self._active and inputs and isinstance(inputs[0], Tensor)):
                return
            known = next((layer for layer in self.found.layers if layer.name == name), None)
            if known is not None:
                known.calls += 1
                return
            given = output[0] if isinstance(output, tuple) else output
            if not isinstance(given, Tensor):
                return
            self._nodes[name] = given.grad_fn
            self._pending = name
            self.found.layers.append(_layer(name, module, inputs[0], given))
            self.found.batch_size = self.found.batch_size or len(inputs[0])

        return note

    def _saw_activation(self, name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not self._active:
                return
            self.found.activations[name] = type(module).__name__
            layer = next((layer for layer in self.found.layers if layer.name == self._pending), None)
            if layer is not None and inputs and isinstance(inputs[0], Tensor) and inputs[0].shape[-1] == layer.width:
                layer.activation = name
            self._pending = ""

        return note


def _layer(name: str, module: nn.Module, given: Tensor, made: Tensor) -> LayerFound:
    width = made.shape[1] if isinstance(module, _CONV) and made.ndim > 1 else made.shape[-1]
    found = LayerFound(name, type(module).__name__, width, made.ndim, keeps_shape=given.shape == made.shape)
    if given.grad_fn is None and given.is_floating_point():
        with torch.no_grad():
            features = given.detach().float().movedim(1 if isinstance(module, _CONV) else -1, 0).flatten(1)
            sizes = features.square().mean(dim=1).sqrt()
            found.reads_data, found.input_size = True, float(features.square().mean().sqrt())
            middle = float(sizes.median())
            found.input_spread = float(sizes.max()) / middle if middle > 0 else math.nan
    return found


def _optimizer(optimizer: torch.optim.Optimizer) -> OptimizerFound:
    group = optimizer.param_groups[0]
    given = group.get("max_lr", group.get("initial_lr", group.get("lr")))
    eps = group.get("eps")
    known = float(eps) if isinstance(eps, float | int) else math.nan
    return OptimizerFound(type(optimizer).__name__, float(given or 0.0), known)


def _tied(module: nn.Module) -> Iterator[str]:
    owners: dict[int, list[str]] = defaultdict(list)
    for name, part in module.named_modules():
        for own, parameter in part.named_parameters(recurse=False):
            owners[id(parameter)].append(f"{name}.{own}".lstrip("."))
    yield from (" = ".join(names) for names in owners.values() if len(names) > 1)


def _is_quantised(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    kind = type(module)
    return (isinstance(weight, Tensor) and weight.dtype in _INTEGERS) or any(
        word in kind.__module__ for word in ("quantized", "bitsandbytes")
    )
