"""Signal and error: what each layer puts out, and the gradient with respect to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.compiled import has_compiled_part
from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.measurement.layer_order import owners
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.norms import as_real
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.measurement.schedule import SCHEDULE
from grad_callbacks.measurement.sharding import is_alone

QUANTITIES = ("signal", "spread", "error")


@dataclass(frozen=True)
class _Seen:
    """One norm of a pass, a scalar on its device."""

    layer: str
    quantity: int
    norm: Tensor
    weight: float  # of its square in the sum over the passes


class Signal:
    """Measures what the layers with a weight put out, and the gradient that comes back to it.

    By the chain rule the error at a layer is the error at the next one times a Jacobian (Schoenholz et al. 2017, "Deep
    Information Propagation"), so what vanishes or explodes over depth is seen here, whether a layer has a bias or not;
    that of a recurrent layer at its input. The norm of the error is independent of the width for weights with a
    variance of one over ``fan_in``.

    The hooks only read, and are there only for the passes that are measured. A compiled model gets none in its own
    passes, since it would be compiled again because of them: its batch is run again as the model was written.

    Args:
        model: Its layers are measured.

    Attributes:
        is_wanted: Measure the next reading too.
    """

    def __init__(self, model: nn.Module) -> None:
        self.is_wanted = False
        self._model = model
        self._modules = list(_measurable(model))
        self._is_compiled = has_compiled_part(model, in_place=True)
        self._handles: list[RemovableHandle] = []
        self._seen: list[_Seen] = []
        self._readings = 0
        self._last: dict[str, NDArray[np.float64]] = {}
        self._prepare()

    @property
    def needs_replay(self) -> bool:
        """True if this reading is to be measured by running a compiled model's batch again."""
        return self._is_compiled and self._is_due

    def replay(self, replay: Callable[[], Tensor] | None) -> None:
        """Run a compiled model's batch again, if this reading is to be measured.

        Args:
            replay: Computes its loss; None where that is not possible.
        """
        if not (self.needs_replay and replay is not None and is_alone()):
            return
        self._attach()
        try:
            with undisturbed(self._model):
                needed = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
                torch.autograd.grad(replay(), needed, allow_unused=True)
        except Exception:  # the user's code and memory: a measurement must not end a training
            self._seen = []
        finally:
            self._release()

    def take(self, layers: Layers) -> Tensor | None:
        """Return the numbers of the passes since the last call; None if this reading is not measured.

        Returns:
            Float64, shape ``(3 * layers,)``, on the device of ``layers``: for each layer the root mean square of its
            output; the share of that which differs over the batch; the norm of the gradient with respect to the
            output. NaN where it is unknown.
        """
        if not self._modules:
            return None
        found = self._gathered(layers) if self._is_due else None
        self.pass_over(1)
        return found

    @property
    def until_due(self) -> int | None:
        """How many readings come before one that is measured; None if none ever is."""
        if not self._modules:
            return None
        return 0 if self._is_due else self._interval - self._readings % self._interval

    def pass_over(self, readings: int) -> None:
        """Count readings, and prepare for the next one."""
        if self._modules:
            self._readings += readings
            self._prepare()

    def arrive(self, numbers: Sequence[float]) -> dict[str, NDArray[np.float64]]:
        """Take in what :meth:`take` returned, on the host, and return the last that was measured, by quantity.

        Args:
            numbers: A single one if nothing was measured.
        """
        if len(numbers) > 1:
            self._last = dict(zip(QUANTITIES, np.array(numbers).reshape(len(QUANTITIES), -1), strict=True))
        return dict(self._last)

    def forget(self) -> None:
        """Forget what was measured: the layers are others now."""
        self._last = {}

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        last = {name: values.tolist() for name, values in self._last.items()}
        return {"readings": self._readings, "is_wanted": self.is_wanted, "is_due": self._is_due, "last": last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._readings, self.is_wanted = state["readings"], state["is_wanted"]
        self._last = {name: np.array(values) for name, values in state["last"].items()}
        self._is_due = state["is_due"]
        if not self._is_due:
            self.detach()

    def detach(self) -> None:
        """Take the hooks away."""
        self._release()
        self._seen = []

    def _prepare(self) -> None:
        """Decide whether the next reading is measured, and hook into its passes if so."""
        first = 1 if self._is_compiled else SCHEDULE.first
        self._is_due = self._readings < first or self._readings % self._interval == 0 or self.is_wanted
        self._seen = []
        if not self._is_due:
            self._release()
        elif not self._is_compiled:
            self._attach()

    @property
    def _interval(self) -> int:
        return SCHEDULE.replayed if self._is_compiled else 2 * SCHEDULE.interval

    def _attach(self) -> None:
        if not self._handles:
            self._handles = [module.register_forward_hook(partial(self._watch, name)) for name, module in self._modules]
            recurrent = [(name, module) for name, module in self._modules if isinstance(module, nn.RNNBase)]
            self._handles += [m.register_forward_pre_hook(partial(self._watch_input, name)) for name, m in recurrent]

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _gathered(self, layers: Layers) -> Tensor:
        count, place = len(layers.names), {name: place for place, name in enumerate(layers.names)}
        seen = [one for one in self._seen if one.layer in place]
        cells = [one.quantity * count + place[one.layer] for one in seen]
        times = Counter(cells)
        if not seen:
            return to_device([torch.nan] * (len(QUANTITIES) * count), layers.device)
        norms = torch.stack([one.norm.to(layers.device, non_blocking=True) for one in seen]).double()
        weights = to_device([one.weight for one in seen], layers.device)
        sums = to_device(
            [0.0 if cell in times else torch.nan for cell in range(len(QUANTITIES) * count)], layers.device
        )
        sums.index_add_(0, to_device(cells, layers.device).long(), norms.square() * weights)
        square, common, error = sums.view(len(QUANTITIES), count)
        uses = to_device([float(times[cell]) for cell in range(count)], layers.device)
        return torch.cat([(square / uses).sqrt(), (1 - common / square).clamp(min=0).sqrt(), error.sqrt()])

    def _watch(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        tensor = _first_tensor(output)
        if tensor is None or not tensor.requires_grad or not tensor.numel():
            return
        values = as_real(tensor.detach())
        self._seen.append(_Seen(name, 0, _norm(values), 1 / values.numel()))
        if len(values) > 1:  # one pass less than a variance takes, at the price of its last digits
            common = len(values) / values.numel()
            self._seen.append(_Seen(name, 1, _norm(values.mean(dim=0)), common))
        if not isinstance(module, nn.RNNBase):
            tensor.register_hook(partial(self._note_error, name, self._seen))  # type: ignore[no-untyped-call]

    def _watch_input(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The error of a recurrent layer is read at its input, where it has come back through all time steps."""
        sequence = inputs[0] if inputs else None
        if not isinstance(sequence, Tensor) or not sequence.is_floating_point() or not torch.is_grad_enabled():
            return None  # packed, or by keyword: not measured
        if not sequence.requires_grad:
            sequence = sequence.detach().requires_grad_()  # which changes no other gradient
        sequence.register_hook(partial(self._note_error, name, self._seen))  # type: ignore[no-untyped-call]
        return (sequence, *inputs[1:])

    @staticmethod
    def _note_error(name: str, seen: list[_Seen], gradient: Tensor) -> None:
        seen.append(_Seen(name, 2, _norm(as_real(gradient.detach())), 1.0))


def _norm(values: Tensor) -> Tensor:
    """Return the L2 norm, a scalar; that of 16-bit numbers in float32, where their squares do not overflow."""
    wide = values if values.dtype in (torch.float32, torch.float64) else values.float()
    norm: Tensor = torch.linalg.vector_norm(wide)
    return norm


def _measurable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in owners(model):
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, torch.jit.ScriptModule)):
            continue
        if any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False)):
            yield name, module


def _first_tensor(output: object) -> Tensor | None:
    """The first of what a module returns, if it is an ordinary tensor of numbers that are not whole."""
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim == 0:
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(output):  # inside vmap or grad it must not leave the call
        return None
    return output if output.is_floating_point() or output.is_complex() else None
