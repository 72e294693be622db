"""What only published rules look at: absolute means, zeros and ranges of gradients, and activations' extremes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# SageMaker Debugger, SaturatedActivation: inputs beyond which the derivative is below 1e-7.
LIMITS = {"Tanh": (-9.4999, 9.4999), "Sigmoid": (-23.0, 16.99999)}
RANGES = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0)}
RECTIFIERS = ("ReLU", "ReLU6")
SAMPLE = 4096  # entries of a gradient that a percentile is taken of

ACTIVATION_SHARES = ("inactive", "mute", "beyond", "saturated", "input_variance")


@torch.no_grad()
def mean_absolute(gradients: Sequence[Tensor | None], sizes: Sequence[float]) -> list[float]:
    """Return the mean absolute entry of each gradient; NaN where there is none.

    Args:
        gradients: The stored entries of each.
        sizes: Number of entries of each parameter, those included that a sparse gradient does not store.
    """
    held = [(i, gradient) for i, gradient in enumerate(gradients) if gradient is not None and gradient.numel() > 0]
    means = [float("nan")] * len(gradients)
    if held:
        sums = torch.stack([norm.double() for norm in torch._foreach_norm([g.float() for _, g in held], 1)]).tolist()
        for (i, _), total in zip(held, sums, strict=True):
            means[i] = total / sizes[i]
    return means


@torch.no_grad()
def zero_share(gradient: Tensor | None, size: float) -> float:
    """Return the share of zeros among a gradient's entries; NaN if there is none."""
    if gradient is None or gradient.numel() == 0:
        return float("nan")
    return 1.0 - float(torch.count_nonzero(gradient)) / size


@torch.no_grad()
def middle_range(gradient: Tensor | None) -> float:
    """Return the distance from the 5th to the 95th percentile of a gradient's entries; NaN if there is none."""
    if gradient is None or gradient.numel() == 0:
        return float("nan")
    entries = gradient.detach().flatten().float()
    entries = entries[:: max(1, entries.numel() // SAMPLE)]
    low, high = torch.quantile(entries, torch.tensor([0.05, 0.95])).tolist()
    return float(high - low)


@torch.no_grad()
def activation_shares(module: nn.Module, inputs: Tensor, outputs: Tensor) -> tuple[float, ...]:
    """Measure one pass of a batch through an activation module.

    Returns:
        In the order of :data:`ACTIVATION_SHARES`, NaN where it does not apply:

        * ``inactive``: share of a ReLU's units that are active on less than 1% of the samples;
        * ``mute``: share of units, of any activation but tanh and sigmoid, whose output is below 1e-5 in size on 95% of
          the samples;
        * ``beyond``: share of a tanh's or sigmoid's units whose input is beyond SageMaker's limits on more than
          99% of the samples;
        * ``saturated``: share of its units whose saturation is above 0.85: the mean distance of the output from
          the middle of its range, over half the range (Rakitianskaia & Engelbrecht 2015; with an even number of
          bins their measure is this mean);
        * ``input_variance``: variance of all inputs.
    """
    nan = float("nan")
    kind = type(module).__name__
    x, y = _by_unit(inputs), _by_unit(outputs)
    inactive = mute = beyond = saturated = nan
    if kind in RANGES:
        low, high = RANGES[kind]
        middle, half = (low + high) / 2, (high - low) / 2
        saturated = float((((y - middle).abs() / half).mean(0) > 0.85).float().mean())
        lowest, highest = LIMITS[kind]
        beyond = float((((x < lowest) | (x > highest)).float().mean(0) > 0.99).float().mean())
    else:
        mute = float(((y.abs() < 1e-5).float().mean(0) >= 0.95).float().mean())
    if kind in RECTIFIERS:
        inactive = float(((y > 0).float().mean(0) < 0.01).float().mean())
    return inactive, mute, beyond, saturated, float(x.var(unbiased=False))


def _by_unit(values: Tensor) -> Tensor:
    """Return values as ``(samples, units)``: a convolution's units are its channels, else the last dimension is."""
    values = values.detach().float()
    if values.dim() >= 4:
        values = values.movedim(1, -1)
    return values.reshape(-1, values.shape[-1]) if values.dim() > 1 else values.reshape(-1, 1)
