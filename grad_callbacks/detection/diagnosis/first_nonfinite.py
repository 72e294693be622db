"""Finds the first operation that makes a NaN or an infinity, by running the batch again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.running import RunningModules, user_line, user_line_of
from grad_callbacks.measurement.batch import tensors_in
from grad_callbacks.measurement.replay import undisturbed


@dataclass(frozen=True)
class FirstNonFiniteThresholds(Thresholds):
    """Thresholds of the search for the first non-finite number."""

    large: float = threshold(
        1e9,
        "arguments that are all below cannot have overflowed",
        unit="1",
        source="its fourth power is within float32's range of 3.4e38",
    )


LIMITS = FirstNonFiniteThresholds()

Source = Literal["operation", "overflow", "16-bit overflow", "input", "weights", ""]

# Defined for some numbers only, or infinite at some. exp overflows in float32 above 88.
_PARTIAL = (
    *(
        "log",
        "log2",
        "log10",
        "log1p",
        "logit",
        "xlogy",
        "special_xlog1py",
        "sqrt",
        "rsqrt",
        "pow",
        "digamma",
        "lgamma",
    ),
    *("div", "true_divide", "reciprocal", "fmod", "remainder", "acos", "asin", "atanh", "acosh", "erfinv", "tan"),
    *("exp", "exp2", "expm1", "sinh", "cosh", "std", "var", "std_mean", "var_mean", "mean", "median"),
    *("nll_loss_forward", "nll_loss2d_forward", "linalg_inv_ex", "linalg_cholesky_ex", "linalg_eigh"),
)
# Defined for all numbers: a NaN is the difference of two products that have overflowed.
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution", "convolution_backward")
_RAW = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "alias")  # memory as it was


@dataclass(frozen=True)
class NonFiniteOrigin:
    """The first operation that made a NaN or an infinity.

    Attributes:
        source: ``"operation"``: undefined for its arguments; ``"overflow"``: finite numbers grew beyond float32's
            range; ``"16-bit overflow"``: beyond 65504 in float16; ``"input"`` or ``"weights"``: it was there before
            the forward pass; ``""``: none was found.
        module: The innermost module that ran it; "" in the loss.
        operation: Its name, such as ``"log"``, or ``"SqrtBackward0"`` in the backward pass.
        is_nan: It is a NaN, not an infinity.
        in_backward: It happened in the backward pass.
        line: ``"file.py:12"`` in the user's code; "" if unknown.
    """

    source: Source = ""
    module: str = ""
    operation: str = ""
    is_nan: bool = False
    in_backward: bool = False
    line: str = ""


def first_nonfinite(model: nn.Module, replay: Callable[[], Tensor], loss_scale: float = 1.0) -> NonFiniteOrigin:
    """Run the batch forward and backward and look at every operation; leaves everything as it was.

    Masks do not count: an infinity that was written as one (``masked_fill`` with -inf) is taken for an input, and it
    matters only if the loss or a gradient is not finite. Takes two to ten times as long as a training step, and waits
    for the device at each operation.

    Args:
        model: The model.
        replay: Computes the loss of the batch.
        loss_scale: What the loss is multiplied with before the backward pass, as by a loss scaler.
    """
    watch = _Watch()
    with suppress(Exception), undisturbed(model), watch.named(model), watch:
        watch.run(model, replay, loss_scale)
    if watch.found is not None and watch.found.source:
        return watch.found
    if _any_nonfinite(model.parameters()):
        return NonFiniteOrigin("weights")
    return watch.found or NonFiniteOrigin()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, and keeps the first that made something non-finite of finite arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: NonFiniteOrigin | None = None
        self._suspect: NonFiniteOrigin | None = None  # the first that made a non-finite number of finite ones
        self._met: NonFiniteOrigin | None = None  # the first that had a non-finite argument
        self._modules: list[str] = []
        self._in_backward = False

    def run(self, model: nn.Module, replay: Callable[[], Tensor], loss_scale: float) -> None:
        with torch.autograd.set_detect_anomaly(True, check_nan=False):  # each node keeps the line that made it
            loss = replay()
        if not _is_finite(loss):
            self.found = self._verdict()
            return
        self._suspect = self._met = None  # harmless infinities, such as a mask's
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._in_backward = True
        try:
            # The anomaly mode sees what runs where this mode is not active, on the threads of other devices.
            with torch.autograd.set_detect_anomaly(True, check_nan=True):
                gradients = torch.autograd.grad(loss * loss_scale, parameters, allow_unused=True)
        except RuntimeError as error:
            named = re.search(r"Function '(\w+)' returned nan", str(error))
            self.found = self._verdict()
            if not self.found.source and named:
                self.found = NonFiniteOrigin("operation", "", named[1], True, True)
            return
        if not all(_is_finite(gradient) for gradient in gradients if gradient is not None):
            self.found = self._verdict()

    def named(self, model: nn.Module) -> RunningModules:
        """Follow which module is running."""
        return RunningModules(model, self._modules)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        arguments = list(_values((args, kwargs)))  # looked at before: it may work in place
        enters_finite = all(_is_finite(value) for value in arguments)
        enters_nan = not enters_finite and any(_has_nan(value) for value in arguments)
        output = func(*args, **kwargs)
        plain = name.rstrip("_")
        if plain in _RAW or self._suspect is not None:
            return output
        made = [value for value in _values(output) if not _is_finite(value)]
        if made and (enters_finite or (not enters_nan and any(_has_nan(value) for value in made))):
            self._suspect = self._origin(plain, args, made, any(map(_is_large, arguments)))
        elif not enters_finite and self._met is None:
            self._met = NonFiniteOrigin("input", self._module(), plain, line=user_line(), in_backward=self._in_backward)
        return output

    def _verdict(self) -> NonFiniteOrigin:
        return self._suspect or self._met or NonFiniteOrigin()

    def _origin(self, name: str, args: tuple[Any, ...], made: list[Any], is_large: bool) -> NonFiniteOrigin:
        node = torch._C._current_autograd_node() if self._in_backward else None
        is_half = any(isinstance(value, Tensor) and value.dtype is torch.float16 for value in made)
        is_nan = any(_has_nan(value) for value in made)
        is_overflow = name in _PRODUCTS or (is_large and not is_nan)
        source: Source = "overflow" if is_overflow or is_half else "operation"
        if name in _PARTIAL and not (is_half and not self._is_undefined_in_float32(name, args)):
            source = "operation"
        elif is_half:
            source = "16-bit overflow"
        operation = name if node is None else str(node.name()).rpartition("::")[2]
        line = user_line() if node is None else user_line_of(node)
        return NonFiniteOrigin(source, self._module(), operation, is_nan, self._in_backward, line)

    @staticmethod
    def _is_undefined_in_float32(name: str, args: tuple[Any, ...]) -> bool:
        wide = [value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in args]
        try:
            return not _is_finite(getattr(torch.ops.aten, name)(*wide))
        except Exception:  # an argument that this overload does not take
            return True

    def _module(self) -> str:
        return self._modules[-1] if self._modules and not self._in_backward else ""


def _values(nested: Any) -> Iterator[Any]:
    """The tensors and floats in arguments or results."""
    if isinstance(nested, (Tensor, float)):
        yield nested
    elif isinstance(nested, (list, tuple)):
        for entry in nested:
            yield from _values(entry)
    elif isinstance(nested, dict):
        yield from _values(list(nested.values()))


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return True
    if value.layout is not torch.strided or value.device.type == "meta":
        return True
    return bool(torch.isfinite(value).all())


def _is_large(value: Any) -> bool:
    if isinstance(value, float):
        return abs(value) > LIMITS.large
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout is not torch.strided:
        return False
    return value.device.type != "meta" and bool((value.abs() > LIMITS.large).any())


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    return not _is_finite(value) and bool(torch.isnan(value).any())


def _any_nonfinite(tensors: Any) -> bool:
    return any(not _is_finite(tensor.detach()) for tensor in tensors_in(list(tensors)))
