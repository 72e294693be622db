"""Parameter shapes of known networks, and of stacks of equal tensors."""

from __future__ import annotations

import math

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    """ResNet-50 (He et al. 2016): 161 tensors, 25.6M entries."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += _convolution(inputs, width, 1) + _convolution(width, width, 3) + _convolution(width, 4 * width, 1)
            if block == 0:
                shapes += _convolution(inputs, 4 * width, 1)
            inputs = 4 * width
    return [*shapes, (1000, inputs), (1000,)]


def gpt2() -> Shapes:
    """GPT-2 small (Radford et al. 2019): 148 tensors, 124M entries."""
    width = 768
    block: Shapes = [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [(width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *block * 12, (width,), (width,)]


def many(tensors: int = 1000, width: int = 64) -> Shapes:
    """A deep stack of small linear layers."""
    layer: Shapes = [(width, width), (width,)]
    return layer * (tensors // 2)


def equal(tensors: int, entries: int) -> Shapes:
    """``tensors`` matrices of about ``entries`` entries together."""
    return [(2, max(1, entries // tensors // 2))] * tensors


def entries(shapes: Shapes) -> int:
    """Number of entries in all tensors together."""
    return sum(math.prod(shape) for shape in shapes)


def label(shapes: Shapes) -> str:
    """Say how many tensors and entries there are, as in ``161 tensors, 25.6M``."""
    count = entries(shapes)
    size = next(
        (f"{count / unit:.3g}{name}" for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")) if count >= unit)
    )
    return f"{len(shapes)} tensors, {size}"


def _convolution(inputs: int, outputs: int, size: int) -> Shapes:
    return [(outputs, inputs, size, size), (outputs,), (outputs,)]
