"""Layer-sequential unit variance: scale every layer so that its output has unit size on one batch.

Mishkin & Matas 2016, "All you need is a good init", algorithm 1: orthogonal weights, then each layer in turn is divided
by the deviation of its output on a batch. Here one forward pass does it: a hook corrects each layer's output before
the next layer sees it, and notes the factor.

Activations whose mean is not zero (sigmoid) hide the signal behind a constant; there each unit's mean on the batch goes
into its bias too (Salimans & Kingma 2016, "Weight Normalization", sec. 3). The last layer of a residual branch is
scaled down by the root of the number of branches, so that their sum keeps its size (Zhang et al. 2019, "Fixup").
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from grad_callbacks.measurement.replay import undisturbed

Scheme = Literal["lsuv", "orthogonal", "he", "xavier"]

CENTRED = ("Sigmoid", "Hardsigmoid", "Softplus")  # activations whose outputs are all positive
LARGEST = 2048  # shorter side of a matrix beyond which it is not made orthogonal: that takes its cube of operations
STATE = 0.2  # size of a plain recurrence's states at a sequence's end: it forgets by its tanh, linear for small ones
GATE = 0.7  # size of what a gated cell's gates and candidates get from its inputs
PHASE = math.pi / 4  # largest angle by which a plain recurrence turns its states each step
CANDIDATE = 2  # its place among the parts of a gated cell's weights, behind two gates, in LSTM and GRU alike
OUTPUT = 1.0  # size of the last layer's output
GENTLE = 0.05  # the same behind activations that are all positive: their mean makes the head's curvature large
# Of hidden and last outputs in sigmoid convolutional nets, whose average over positions keeps the constant and loses
# most of the signal: sigmoid(z) is (1 + tanh(z / 2)) / 2, so size 2 is to it what unit size is to tanh.
SPATIAL, SPATIAL_OUTPUT = 2.0, 0.3

_RNN = (nn.RNNBase, nn.RNNCellBase)
_CONV = nn.modules.conv._ConvNd


@dataclass
class Plan:
    """What the pass has found for one layer: factors for the weight and a bias of its own.

    Attributes:
        scale: The factor.
        shift: Subtracted from each unit's output, shape ``(units,)``; None for nothing.
    """

    scale: float = 1.0
    shift: Tensor | None = None


@dataclass
class Draft:
    """The layers that an initialisation changes, and what they do on a batch."""

    model: nn.Module
    activation: str = ""
    branch_ends: Mapping[int, float] = field(default_factory=dict)  # id of a weight -> size of its layer's output
    size: float = 1.0

    def layers(self) -> dict[str, nn.Module]:
        """Return the layers whose output is scaled, by name."""
        kinds = (nn.Linear, _CONV, nn.MultiheadAttention)
        inner = {id(m.out_proj) for m in self.model.modules() if isinstance(m, nn.MultiheadAttention)}
        return {n: m for n, m in self.model.named_modules() if isinstance(m, kinds) and id(m) not in inner}


@dataclass(frozen=True)
class Sequences:
    """What a recurrent layer reads.

    Attributes:
        length: Steps of a sequence.
        size: Root mean square of the entries.
    """

    length: int = 2
    size: float = 1.0


@torch.no_grad()
def start_again(
    model: nn.Module, scheme: Scheme, activation: str, read: Mapping[nn.Module, Sequences] = MappingProxyType({})
) -> None:
    """Give every linear, convolution, recurrent and attention layer fresh weights, and biases of zero.

    Weights that are there are made orthogonal or rescaled instead of drawn anew: they are the user's own random
    numbers, the same on every process. Only weights without any spread are drawn, by a generator of their own.

    Args:
        model: Is changed in place.
        scheme: ``"lsuv"`` and ``"orthogonal"`` make orthogonal weights, ``"he"`` and ``"xavier"`` random ones of the
            deviation that He et al. 2015 and Glorot & Bengio 2010 derive.
        activation: Its gain is applied to orthogonal weights.
        read: What recurrent layers read, as far as it is known.
    """
    for place, module in enumerate(model.modules()):
        if isinstance(module, _RNN):
            _recurrent(module, place, read.get(module, Sequences()))
        elif isinstance(module, nn.MultiheadAttention):
            for weight in module.parameters(recurse=False):
                if weight.ndim >= 2:
                    _refill(weight, "xavier", 1.0, place)
                else:
                    weight.zero_()
        elif isinstance(module, (nn.Linear, _CONV)):
            gain = math.sqrt(2.0) if activation.endswith("ReLU") or activation in ("GELU", "SiLU", "ELU") else 1.0
            _refill(module.weight, scheme, gain, place)
            if module.bias is not None:
                module.bias.zero_()


def measure(draft: Draft, replay: Callable[[], Tensor]) -> dict[str, Plan]:
    """Run the batch forward once, each layer's output corrected on its way, and return the corrections by layer.

    Leaves no trace.
    """
    plans: dict[str, Plan] = {}
    layers = draft.layers()
    with undisturbed(draft.model):
        order: list[str] = []
        handles = [m.register_forward_pre_hook(partial(_note, order, name)) for name, m in layers.items()]
        try:
            replay()
        finally:
            for handle in handles:
                handle.remove()
        last = order[-1] if order else ""
        size, output = _sizes_of_outputs(draft, layers.values())
        ends = {name: draft.branch_ends[id(m.weight)] for name, m in layers.items() if _is_end(draft, m)}
        handles = [
            m.register_forward_hook(
                partial(_correct, plans, name, ends.get(name, output if name == last else size), draft)
            )
            for name, m in layers.items()
        ]
        try:
            replay()
        finally:
            for handle in handles:
                handle.remove()
    return plans


@torch.no_grad()
def mirror(draft: Draft, order: Sequence[str], replay: Callable[[], Tensor]) -> bool:
    """Make the layers of a plain stack look linear, so that a deep rectifier net starts as an orthogonal linear one.

    Half of the units are the other half's negatives, and the next layer takes their difference: relu(z) - relu(-z) is
    z, and the same holds for GELU and SiLU. In a deep stack all inputs would else come out alike (Balduzzi et al.
    2017, "The Shattered Gradients Problem", sec. 4.1). A layer whose outputs go on as they are, an autoencoder's code
    say, keeps a unit for each: without an activation between them two such halves would stay each other's negatives,
    and half of the code would be lost for good.

    Args:
        draft: Its linear layers and convolutions are changed in place.
        order: Their names in the order of execution.
        replay: Runs the batch.

    Returns:
        False, and nothing is changed, if a layer does not fit to the one before.
    """
    layers = draft.layers()
    stack = [layers[name] for name in order]
    is_halved = [not passed_on for passed_on in _passed_on(draft, order, replay)] + [False]
    outs = [_sizes(module)[0] for module in stack]
    ins = [_sizes(module)[1] for module in stack]
    is_plain = all(isinstance(module, (nn.Linear, _CONV)) for module in stack) and len(set(stack)) == len(stack)
    if not is_plain or any(out % 2 for out, halved in zip(outs, is_halved, strict=True) if halved):
        return False
    if any(into % out for out, into in zip(outs, ins[1:], strict=False)):
        return False
    for place, module in enumerate(stack):
        weight: Tensor = module.weight  # type: ignore[assignment]
        takes_difference = place > 0 and is_halved[place - 1]
        half = weight[: len(weight) // 2] if is_halved[place] else weight
        half = half.flatten(2) if weight.ndim > 2 else half.unsqueeze(2)
        half = half[:, : half.shape[1] // 2] if takes_difference else half
        seed = half.flatten(1)
        whole = (_orthogonal(seed) if min(seed.shape) <= LARGEST else seed / seed.norm(dim=1).mean()).view_as(half)
        whole = torch.cat([whole, -whole], dim=1) if takes_difference else whole
        whole = torch.cat([whole, -whole]) if is_halved[place] else whole
        weight.copy_(whole.view_as(weight))
    return True


def _passed_on(draft: Draft, order: Sequence[str], replay: Callable[[], Tensor]) -> list[bool]:
    """Whether the next layer takes in what each layer but the last gives out, the same numbers."""
    ins: dict[str, Tensor] = {}
    outs: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if name not in outs and inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            # Copies: an activation may work in place.
            ins[name], outs[name] = inputs[0].detach().clone(), output.detach().clone()

    layers = draft.layers()
    with undisturbed(draft.model):
        handles = [layers[name].register_forward_hook(partial(note, name)) for name in order]
        try:
            replay()
        finally:
            for handle in handles:
                handle.remove()
    return [name in outs and other in ins and _is_same(outs[name], ins[other]) for name, other in pairwise(order)]


def _is_same(output: Tensor, taken: Tensor) -> bool:
    return output.numel() == taken.numel() and torch.equal(output.flatten(), taken.flatten())


def _sizes(module: nn.Module) -> tuple[int, int]:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.shape[0], weight.shape[1]


@torch.no_grad()
def apply(draft: Draft, plans: Mapping[str, Plan]) -> None:
    """Change weights and biases as planned."""
    for name, module in draft.layers().items():
        plan = plans.get(name)
        if plan is None:
            continue
        target = module.out_proj if isinstance(module, nn.MultiheadAttention) else module
        weight: Tensor = target.weight  # type: ignore[assignment]
        weight.mul_(plan.scale)
        if target.bias is not None and plan.shift is not None:
            bias: Tensor = target.bias  # type: ignore[assignment]
            bias.sub_((plan.shift * plan.scale).to(bias.dtype))


def _sizes_of_outputs(draft: Draft, layers: Iterable[nn.Module]) -> tuple[float, float]:
    """Size of the hidden layers' outputs, and of the last one's."""
    if draft.activation == "Sigmoid" and any(isinstance(module, _CONV) for module in layers):
        return SPATIAL * draft.size, SPATIAL_OUTPUT
    return draft.size, GENTLE if draft.activation in CENTRED else OUTPUT


def _is_end(draft: Draft, module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and id(weight) in draft.branch_ends


def _note(order: list[str], name: str, *_: Any) -> None:
    if name in order:
        order.remove(name)
    order.append(name)


def _correct(
    plans: dict[str, Plan], name: str, size: float, draft: Draft, module: nn.Module, inputs: object, output: Any
) -> Any:
    """Correct a layer's output; the first use of a layer decides."""
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor) or not first.is_floating_point() or not first.numel():
        return None
    if name not in plans:
        plans[name] = _plan(first.detach(), size, draft, module)
    plan = plans[name]
    shift = 0.0 if plan.shift is None else _broadcast(plan.shift, module, first)
    corrected = ((first.float() - shift) * plan.scale).to(first.dtype)
    return (corrected, *output[1:]) if isinstance(output, tuple) else corrected


def _plan(output: Tensor, size: float, draft: Draft, module: nn.Module) -> Plan:
    values = output.double()
    unit = 1 if isinstance(module, _CONV) else -1
    shift = None
    # A layer that gets a constant only, such as an embedded class, would lose it with its mean.
    if draft.activation in CENTRED and getattr(module, "bias", None) is not None and values.ndim >= 2:
        flat = values.movedim(unit, -1).flatten(0, -2)
        shift = flat.mean(0)
        centred = flat - shift
        if float(centred.square().mean()) > 1e-12 * float(flat.square().mean()):
            values = centred
        else:
            shift = None
    rms = math.sqrt(float(values.square().mean()))
    scale = size / rms if math.isfinite(rms) and rms > 0 else 1.0
    return Plan(scale, None if shift is None else shift.float())


def _broadcast(shift: Tensor, module: nn.Module, like: Tensor) -> Tensor:
    return shift.view(-1, *[1] * (like.ndim - 2)) if isinstance(module, _CONV) else shift


def _recurrent(module: nn.Module, place: int, read: Sequences) -> None:
    """Recurrences that remember for as long as the sequence is.

    A plain recurrence turns pairs of its units by angles from 0 to ``PHASE``: lengths are kept, and slow turns keep
    what slow features need (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences", sec. 3.2
    and 3.4). Its inputs are so small that its states, sums of them, have the size ``STATE`` at the end.

    The forget gates' biases of a gated cell are spread so that the units remember for 1 to as many steps as the
    sequence has (Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", sec. 2.2). For that the gates
    must not depend on the states as yet: their recurrent weights start at zero, only the candidates' are orthogonal.

    ``PHASE``, ``STATE`` and ``GATE`` are the best of a few that were tried on the temporal order problem over 40 to 120
    steps and on digits read pixel by pixel, under four optimizers.
    """
    gates = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}.get(type(module).__name__, 1)
    drive = STATE / math.sqrt(read.length) if gates == 1 else GATE
    for name, parameter in module.named_parameters(recurse=False):
        parts = parameter.chunk(gates)
        if parameter.ndim < 2:
            parameter.zero_()
            if gates > 1 and name.startswith("bias_ih"):
                spans = torch.linspace(1.0, max(2.0, read.length - 1.0), len(parts[0])).to(parameter)
                parts[1].copy_(spans.log())
                if gates == 4:
                    parts[0].copy_(-spans.log())
        elif name.startswith("weight_ih"):
            is_first = not re.search(r"_l[1-9]", name)
            size = read.size if is_first else STATE  # upper layers read states
            for part in parts:
                _refill(part, "xavier", 1.0, place)
                part.mul_(drive / (size * math.sqrt(part.shape[1]) * max(float(part.square().mean().sqrt()), 1e-30)))
        elif gates == 1 and parameter.shape[0] == parameter.shape[1]:
            # Rectified states cannot turn; they stay as they are (IRNN: Le, Jaitly & Hinton 2015).
            rectifies = getattr(module, "nonlinearity", "") == "relu"
            parameter.copy_(_turns(len(parameter), 0.0 if rectifies else PHASE))
        else:
            for gate, part in enumerate(parts):
                if gates > 1 and gate != CANDIDATE and name.startswith("weight_hh"):
                    part.zero_()
                else:
                    _refill(part, "orthogonal", 1.0, place)


def _turns(units: int, largest: float) -> Tensor:
    """A matrix that turns pairs of units by angles from 0 to ``largest``, shape ``(units, units)``."""
    angles = torch.linspace(0.0, largest, units // 2)
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=1).view(-1, 2, 2)
    made: Tensor = torch.block_diag(*turns, *torch.ones(units % 2, 1, 1))  # type: ignore[no-untyped-call]
    return made


def _refill(weight: Tensor, scheme: Scheme, gain: float, place: int) -> None:
    matrix = weight.detach().flatten(1).float()
    if not bool(torch.isfinite(matrix).all()) or float(matrix.std()) <= 1e-6 * float(matrix.abs().max()):
        generator = torch.Generator().manual_seed(place)
        matrix = torch.randn(matrix.shape, generator=generator).to(matrix.device)
    matrix = matrix / matrix.square().mean().sqrt()  # entries of size 1, whatever they were
    rows, columns = matrix.shape
    if scheme in ("lsuv", "orthogonal") and min(rows, columns) <= LARGEST:
        weight.copy_((gain * _orthogonal(matrix)).view_as(weight).to(weight.dtype))
        return
    variance = 2.0 / (rows + columns) if scheme == "xavier" else gain**2 / columns
    weight.copy_((matrix * math.sqrt(variance)).view_as(weight).to(weight.dtype))


def _orthogonal(matrix: Tensor) -> Tensor:
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.t()
    q, r = torch.linalg.qr(tall)
    q = q * torch.sign(torch.diagonal(r)).where(torch.diagonal(r) != 0, torch.ones(()).to(q))
    made: Tensor = q if tall is matrix else q.t()
    return made
