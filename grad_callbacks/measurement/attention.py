"""Attention: how large its scores are, and whether its softmax still chooses among more than one position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from grad_callbacks._utils.compiled import has_compiled_part
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.schedule import SCHEDULE


@dataclass(frozen=True)
class AttentionThresholds(Thresholds):
    """Numbers of the measurement of attention."""

    batch: int = threshold(
        4, "examples of a batch whose scores are computed again", unit="examples", source="not measured"
    )
    queries: int = threshold(
        16, "positions of an example whose scores are computed again", unit="positions", source="not measured"
    )
    fewest_keys: int = threshold(
        4,
        "a position that may attend to fewer has no entropy worth a mean",
        unit="positions",
        source="not measured",
    )
    masked: float = threshold(
        -1e4,
        "scores below are a mask's",
        unit="score",
        source="masks add -inf, the smallest number of the type, -1e9 or -1e4",
    )


LIMITS = AttentionThresholds()
_FUSED = "_scaled_dot_product"  # the kernels of torch.nn.functional.scaled_dot_product_attention, one for each device
_SOFTMAX = ("_softmax", "_safe_softmax")
_KEEPS_PLACE = ("native_dropout", "mul", "div", "_to_copy", "clone")  # between a softmax and the product with values
_PRODUCTS = ("bmm", "mm", "baddbmm")


class _Scores(NamedTuple):
    """What one call of attention has shown, scalars on its device."""

    largest: Tensor
    entropy: Tensor


class Attention:
    """Measures the scores of softmax attention, and the entropy of the softmax.

    The entropy is taken as a share of that of equal weights, the logarithm of the number of positions that may be
    attended to, and averaged over examples, heads and positions; of several calls the lowest counts. Where it comes
    near zero, each position attends to a single one whatever the weights are, and no gradient comes back through the
    scores (Zhai et al. 2023, arXiv 2303.06296, "Stabilizing Transformer Training by Preventing Attention Entropy
    Collapse").

    It looks at the operations themselves, so it needs to know no module: those that torch's
    ``scaled_dot_product_attention`` ends in, and a softmax whose output is multiplied with values. It is there for the
    passes that are measured only, and no more at all once the first of them had no attention. A compiled model is
    measured where its batch is run again as it was written (:class:`~grad_callbacks.measurement.signal.Signal`).

    Args:
        model: What is inside its forward pass, and inside its modules', is looked at.
        optimizer: Attention counts if it trains a matrix of the innermost module around it that has any: of several
            optimizers the one that can be to blame.
        is_left_out: It is not to be measured.

    Attributes:
        is_wanted: Measure the next reading too.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, is_left_out: bool = False) -> None:
        self.is_wanted = False
        self._is_looked_for = not is_left_out
        self._is_compiled = has_compiled_part(model, in_place=True)
        self._model, self._optimizer = model, optimizer
        self._watch: _Watch | None = None
        self._handles: list[RemovableHandle] = []
        self._readings = 0
        if not self._is_compiled:
            self._attach()

    def watched(self, replay: Callable[[], Tensor] | None) -> Callable[[], Tensor] | None:
        """Return what runs a compiled model's batch again, so that its attention is seen; another's as it is."""
        if replay is None or not (self._is_compiled and self._is_looked_for):
            return replay
        self._attach()

        def run() -> Tensor:
            try:
                return replay()
            finally:
                self._release()

        return run

    def take(self) -> tuple[Tensor | None, Tensor | None]:
        """Return what a reading measured, the largest score and the entropy's share, scalars; None for what was not."""
        seen = [] if self._watch is None else self._watch.seen
        if self._watch is not None and not seen and self._readings == 0:
            self._is_looked_for = False
        self.pass_over(1)
        if not seen:
            return None, None
        device = seen[0].largest.device
        largest, entropies = zip(*[(one.largest.to(device), one.entropy.to(device)) for one in seen], strict=True)
        return torch.stack(largest).amax(), torch.stack(entropies).nan_to_num(nan=torch.inf).amin()

    @property
    def until_due(self) -> int | None:
        """How many readings come before one that is measured by itself; None if none ever is."""
        if not self._is_looked_for or self._is_compiled:
            return None
        return 0 if self._handles else SCHEDULE.interval - self._readings % SCHEDULE.interval

    def pass_over(self, readings: int) -> None:
        """Count readings, and prepare for the next one."""
        self._readings += readings
        is_due = self.is_wanted or self._readings % SCHEDULE.interval == 0
        if self._is_looked_for and not self._is_compiled and is_due:
            self._attach()
        else:
            self.detach()

    def detach(self) -> None:
        """Take the hooks away."""
        self._release()
        self._watch = None

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "readings": self._readings,
            "is_wanted": self.is_wanted,
            "is_due": bool(self._handles),
            "is_looked_for": self._is_looked_for,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._readings, self.is_wanted = state["readings"], state["is_wanted"]
        self._is_looked_for &= state["is_looked_for"]
        if state["is_due"]:
            self._attach()
        else:
            self.detach()

    def _attach(self) -> None:
        self._watch = _Watch(self._model, self._optimizer)
        for module in self._model.modules() if self._is_looked_for and not self._handles else ():
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _enter(self, module: nn.Module, inputs: object) -> None:
        if self._watch is not None:
            self._watch.enter(module)

    def _leave(self, module: nn.Module, inputs: object, output: object) -> None:
        if self._watch is not None:
            self._watch.leave()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of a forward pass, and computes the scores of some positions again."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[_Scores] = []
        trained = {id(part) for group in optimizer.param_groups for part in group["params"]}
        # By their places: a batch is run again with copies.
        self._trained = {
            place for module in model.modules() for place, part in _matrices(module) if id(part) in trained
        }
        self._around: list[nn.Module] = []  # the modules that are running, outermost first
        self._is_on = False
        self._weights: dict[int, _Scores] = {}  # of softmaxes that nothing was multiplied with yet, by address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.startswith(_FUSED) and "backward" not in name:
            names = [argument.name for argument in func._schema.arguments]
            self._note(_fused_scores({**dict(zip(names, args, strict=False)), **(kwargs or {})}))
        elif name in _SOFTMAX:
            self._remember(output, _softmax_scores(args[0], args[1]))
        elif name in _KEEPS_PLACE and self._weights:
            made = output[0] if isinstance(output, tuple) else output
            self._remember(made, self._weights.get(_address(args[0])))
        elif name in _PRODUCTS and self._weights:
            self._note(self._weights.pop(_address(args[0]), None))
        return output

    def enter(self, module: nn.Module) -> None:
        """A module begins to run."""
        self._around.append(module)
        if len(self._around) == 1 and torch.is_grad_enabled():
            self._is_on = True
            self.__enter__()  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """The innermost module that is running ends."""
        del self._around[-1:]
        if self._is_on and not self._around:
            self._is_on = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _is_mine(self) -> bool:
        around = ({place for part in module.modules() for place, _ in _matrices(part)} for module in self._around[::-1])
        innermost: set[tuple[int, str]] = next(filter(None, around), set())
        return not innermost or not innermost.isdisjoint(self._trained)

    def _note(self, scores: _Scores | None) -> None:
        if scores is not None and self._is_mine():
            self.seen.append(scores)

    def _remember(self, output: Any, scores: _Scores | None) -> None:
        if scores is not None:
            self._weights[_address(output)] = scores


def _matrices(module: nn.Module) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """The matrices that a module has itself, each with its place."""
    for name, part in module._parameters.items():
        if part is not None and part.ndim > 1:
            yield (id(module), name), part


def _address(value: Any) -> int:
    return value.data_ptr() if type(value) is Tensor else 0


def _fused_scores(arguments: Mapping[str, Any]) -> _Scores | None:
    """What a fused kernel computes inside, for a few examples and positions."""
    query, key = arguments["query"], arguments["key"]
    match query.shape:
        case (_, heads, length, _) if _is_plain(query) and _is_plain(key):  # batch, heads, positions, features
            positions = _evenly(length, LIMITS.queries, query.device)
        case _:
            return None
    some, keys = query[: LIMITS.batch, :, positions].float(), key[: LIMITS.batch].float()
    if keys.shape[1] != heads:  # grouped queries
        keys = keys.repeat_interleave(heads // keys.shape[1], dim=1)
    scale = arguments.get("scale") or 1 / math.sqrt(query.shape[-1])
    scores = some @ keys.transpose(-1, -2) * scale
    if arguments.get("is_causal"):
        later = torch.arange(keys.shape[2], device=query.device) > positions[:, None]
        scores = scores.masked_fill(later, -torch.inf)
    mask = arguments.get("attn_mask", arguments.get("attn_bias"))
    if mask is not None:
        shown = mask.expand(*query.shape[:-1], key.shape[2])[: LIMITS.batch, :, positions]
        scores = scores.masked_fill(~shown, -torch.inf) if shown.dtype is torch.bool else scores + shown
    return _of(scores.flatten(0, -2))


def _softmax_scores(scores: Any, dim: int) -> _Scores | None:
    if not _is_plain(scores) or not scores.shape[:-2] or dim % scores.ndim != scores.ndim - 1:
        return None  # no batch of positions by positions
    rows = scores.flatten(0, -2)
    return _of(rows[_evenly(len(rows), LIMITS.batch * LIMITS.queries * LIMITS.queries, rows.device)].float())


def _of(rows: Tensor) -> _Scores:
    """Largest score and mean share of entropy of rows of scores."""
    is_masked = ~(rows > LIMITS.masked)
    choices = (~is_masked).sum(dim=-1)
    logs = rows.masked_fill(is_masked, -torch.inf).log_softmax(dim=-1)
    entropy = -(logs.exp() * logs.masked_fill(is_masked, 0.0)).sum(dim=-1) / choices.clamp(min=2).log()
    is_told = choices >= LIMITS.fewest_keys
    return _Scores(
        rows.masked_fill(is_masked, 0.0).abs().amax().double(),
        entropy.masked_fill(~is_told, torch.nan).double().nanmean(),
    )


def _evenly(length: int, most: int, device: torch.device) -> Tensor:
    """Up to ``most`` places, evenly over ``length``."""
    step = max(1, math.ceil(length / most))
    return torch.arange(length - 1, -1, -step, device=device).flip(0)


def _is_plain(value: Any) -> bool:
    is_tensor = isinstance(value, Tensor) and value.is_floating_point() and value.layout is torch.strided
    return bool(is_tensor and value.numel() and value.device.type != "meta")
