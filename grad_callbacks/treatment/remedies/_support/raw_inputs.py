"""Layers that take the batch in as it is, and their parameters as if it was standardised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.input_division import is_same
from grad_callbacks.treatment.remedies._support.input_scale import float_tensors, is_known, size_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class RawInput:
    """A layer's input as one batch has it, by feature: of a convolution by channel.

    With ``z = (x - mean) / scale``, ``y = W x + b`` is ``y = W' z + b'`` with ``W' = W scale`` and
    ``b' = b + W mean``.

    Attributes:
        weight: The name of ``W`` in the model, shape ``(outputs, features, ...)``.
        bias: The name of ``b``; None where there is none, or where padding keeps it from taking up the mean.
        mean: The mean of each feature; zeros without a bias.
        scale: The standard deviation of each feature around that mean; 1 for one that is always zero.
    """

    weight: str
    bias: str | None
    mean: tuple[float, ...]
    scale: tuple[float, ...]


def raw_inputs(model: nn.Module, content: Any, replay: Callable[[], Tensor]) -> list[RawInput]:
    """Run the batch again and find the layers that take one of its tensors in, and nothing else.

    Args:
        model: The model.
        content: The batch.
        replay: Computes its loss.
    """
    batch = [(tensor, float(size_of(tensor))) for tensor in float_tensors(content)]
    found: dict[str, tuple[nn.Module, list[Tensor | None]]] = {}

    def look(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        value: Any = next(iter((*args, *kwargs.values())), None)
        is_raw = isinstance(value, Tensor) and is_known(value) and any(is_same(value, *entry) for entry in batch)
        found.setdefault(name, (module, []))[1].append(value.detach().clone() if is_raw else None)

    with suppress(Exception), ExitStack() as stack:  # the user's code
        for name, module in model.named_modules():
            if isinstance(module, (nn.Linear, nn.RNNBase, *_CONVOLUTIONS)):
                handle = module.register_forward_pre_hook(
                    lambda module, args, kwargs, name=name: look(name, module, args, kwargs), with_kwargs=True
                )
                stack.callback(handle.remove)
        with undisturbed(model):
            replay()
    known = dict(model.named_parameters())
    entries = [
        entry
        for name, (module, values) in found.items()
        if (raw := [value for value in values if value is not None]) and len(raw) == len(values)
        for entry in _entries(name, module, torch.cat([_by_feature(module, value) for value in raw]))
    ]
    return [entry for entry in entries if entry.weight in known]  # a shared one has the name of its first place


def _by_feature(module: nn.Module, value: Tensor) -> Tensor:
    """Shape ``(observations, features)``."""
    wide = value.double()
    if isinstance(module, _CONVOLUTIONS):
        wide = wide.movedim(-1 - len(module.kernel_size), -1)
    return wide.reshape(-1, wide.shape[-1])


def _entries(name: str, module: nn.Module, values: Tensor) -> Iterator[RawInput]:
    suffixes = [""]
    parts = ("weight", "bias" if getattr(module, "bias", None) is not None else None)
    if isinstance(module, nn.RNNBase):
        parts = ("weight_ih_l0", "bias_ih_l0" if module.bias else None)
        suffixes = ["", "_reverse"] if module.bidirectional else [""]
    elif isinstance(module, _CONVOLUTIONS):
        parts = ("weight", None)
        if module.groups > 1:
            return
    mean = values.mean(0) if parts[1] is not None else torch.zeros_like(values[0])
    scale = (values - mean).square().mean(0).sqrt()
    scale = scale.where(scale > 0, mean.abs()).where((scale > 0) | (mean != 0), torch.ones_like(scale))
    prefix = f"{name}." if name else ""
    for suffix in suffixes:
        weight, bias = (part if part is None else f"{prefix}{part}{suffix}" for part in parts)
        assert weight is not None
        yield RawInput(weight, bias, tuple(mean.tolist()), tuple(scale.tolist()))


@torch.no_grad()
def begin_standardised(model: nn.Module, inputs: list[RawInput]) -> None:
    """Let the layers do to raw inputs what they did to standardised ones: ``W / scale`` and ``b - W mean / scale``."""
    parameters = dict(model.named_parameters())
    for entry in inputs:
        weight = parameters[entry.weight]
        mean, scale = _numbers(entry, weight)
        weight.div_(scale)
        if entry.bias is not None:
            parameters[entry.bias].sub_((weight * mean).sum(1))


def standardised_gradients(entry: RawInput, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The gradients by which SGD moves ``W`` and ``b`` as it would move ``W'`` and ``b'`` of standardised inputs.

    From ``dL/dW' = (dL/dW - dL/db mean) / scale``, ``W = W' / scale`` and ``b = b' - W mean``.

    Args:
        entry: The layer's input.
        weight: The gradient of ``W``.
        bias: The gradient of ``b``, shape ``(outputs,)``.
    """
    mean, scale = _numbers(entry, weight)
    if entry.bias is None or bias is None:
        return weight / scale.square(), None
    new = (weight - bias.reshape(-1, *[1] * (weight.dim() - 1)) * mean) / scale.square()
    return new, bias - (new * mean).sum(1)


def _numbers(entry: RawInput, like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (1, -1, *[1] * (like.dim() - 2))
    mean, scale = (torch.tensor(each, dtype=like.dtype, device=like.device) for each in (entry.mean, entry.scale))
    return mean.reshape(shape), scale.reshape(shape)
