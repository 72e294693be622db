"""How a model is built, read from the autograd graph of its loss."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.activations import is_activation


@dataclass(frozen=True)
class StructureThresholds(Thresholds):
    """Thresholds of how a model is built."""

    recurrent_uses: int = threshold(
        8,
        "uses of one weight in a forward pass from which on it counts as recurrence",
        unit="uses",
        source="not measured",
    )


LIMITS = StructureThresholds()

# What is multiplied with weights, and what only reshapes on the way.
_PRODUCTS = ("Addmm", "Mm", "Convolution", "MkldnnConvolution", "CudnnConvolution", "Linear", "Addbmm", "Baddbmm")
_RESHAPING = ("T", "View", "Reshape", "Transpose", "Permute", "UnsafeView", "Expand", "ToCopy", "Alias", "Clone")
_SPLITTING = ("Unbind", "Split", "SplitWithSizes", "Select", "Slice", "Chunk")
# The graph's names for activations that may have been called as functions.
_ACTIVATIONS = {
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "Relu": "ReLU",
    "LeakyRelu": "LeakyReLU",
    "Elu": "ELU",
    "Gelu": "GELU",
    "Silu": "SiLU",
    "Mish": "Mish",
    "Softplus": "Softplus",
    "Hardtanh": "Hardtanh",
    "Hardsigmoid": "Hardsigmoid",
}


@dataclass(frozen=True)
class Structure:
    """How a model is built.

    Attributes:
        depth: Layers with weights on the longest path from input to loss; those registered where there is no graph.
        norms: Normalisations.
        skips: Sums that carry a signal past at least one layer; 0 where there is no graph.
        skips_from_norm: Those of them whose short way comes straight out of a normalisation, as in a post-LN
            transformer.
        has_attention: It looks like a transformer.
        recurrent: Names of the recurrent modules; ``"(a weight used n times)"`` for a loop written by hand.
        is_gated: All recurrent modules are gated (LSTM, GRU).
        activations: How often each kind of activation occurs, by class name.
        output_activation: What stands between the last weights and the loss, by class name; "" for nothing.
        criterion: The kind of loss, as the graph names it: ``"LogSoftmax"`` for a cross entropy.
    """

    depth: int
    norms: int
    skips: int = 0
    skips_from_norm: int = 0
    has_attention: bool = False
    recurrent: tuple[str, ...] = ()
    is_gated: bool = False
    activations: dict[str, int] = field(default_factory=dict)
    output_activation: str = ""
    criterion: str = ""

    @property
    def is_post_norm(self) -> bool:
        """True if the residual stream runs through the normalisations."""
        return self.skips > 0 and 2 * self.skips_from_norm >= self.skips

    @property
    def activation(self) -> str:
        """The most frequent kind of activation; "" without any."""
        return max(self.activations, key=self.activations.__getitem__, default="")

    @classmethod
    def of(cls, model: nn.Module, loss: Tensor | None = None) -> Structure:
        """Read the structure off the modules and, if there is one, a loss whose graph is still there."""
        graph = _Graph(loss) if loss is not None and loss.grad_fn is not None else None
        modules = list(model.named_modules())
        kinds = Counter(type(module).__name__ for _, module in modules if is_activation(module))
        recurrent = [(name, m) for name, m in modules if isinstance(m, (nn.RNNBase, nn.RNNCellBase))]
        names = [name or type(module).__name__ for name, module in recurrent]
        if graph is not None and not names and graph.most_uses >= LIMITS.recurrent_uses:
            names = [f"(a weight used {graph.most_uses} times)"]
        norms = sum("norm" in type(module).__name__.lower() for _, module in modules)
        return cls(
            depth=graph.depth if graph else sum(_has_weight(module) for _, module in modules),
            norms=max(norms, graph.norms) if graph else norms,
            skips=graph.skips if graph else 0,
            skips_from_norm=graph.skips_from_norm if graph else 0,
            has_attention=(graph is not None and graph.has_attention)
            or any("attention" in type(module).__name__.lower() for _, module in modules),
            recurrent=tuple(names),
            is_gated=bool(recurrent) and not any(isinstance(m, (nn.RNN, nn.RNNCell)) for _, m in recurrent),
            activations=dict(kinds or (graph.activations if graph else {})),
            output_activation=graph.output[0] if graph else "",
            criterion=graph.output[1] if graph else "",
        )


def branch_ends(loss: Tensor) -> list[Tensor]:
    """Return the weights that come last in each residual branch of a loss's graph, in no order.

    A branch is what a skip goes around; behind its last weight there is nothing but activations and reshaping.
    """
    return _Graph(loss).branch_ends() if loss.grad_fn is not None else []


def followers(loss: Tensor) -> dict[Any, set[str]]:
    """Return for each node of a loss's graph the kinds of what is made of it, reshaping passed over.

    Activations have the names of their classes (``"ReLU"``), all else those of the graph (``"Addmm"``).
    """
    found: dict[Any, set[str]] = {}
    for node in reversed(_inputs_first(loss.grad_fn)) if loss.grad_fn is not None else ():
        kind = _kind(node)
        told = found.get(node, set()) if kind in _RESHAPING else {_ACTIVATIONS.get(kind, kind)}
        for origin in _inputs(node):
            found.setdefault(origin, set()).update(told)
    return found


class _Graph:
    """One walk over the graph of a loss."""

    def __init__(self, loss: Tensor) -> None:
        self._depth: dict[Any, int] = {}
        self._order: dict[Any, int] = {}  # place of each node, inputs before what is made of them
        self._parents: Counter[Any] = Counter()
        weights: Counter[Any] = Counter()
        for node in _inputs_first(loss.grad_fn):
            inputs = _inputs(node)
            self._parents.update(inputs)
            self._order[node] = len(self._order)
            deepest = max((self._depth[origin] for origin in inputs), default=0)
            product = _kind(node) in _PRODUCTS
            self._depth[node] = deepest + product
            if product and (weight := _weight(inputs)) is not None:
                weights[weight] += 1
        kinds = Counter(_kind(node) for node in self._depth)
        self.depth = self._depth[loss.grad_fn]
        self.norms = sum(count for kind, count in kinds.items() if "Norm" in kind and kind != "LinalgVectorNorm")
        self.has_attention = any("DotProductAttention" in kind or "SafeSoftmax" in kind for kind in kinds) or (
            kinds["Softmax"] > 0 and kinds["Bmm"] > 0
        )
        self.activations = {kind: kinds[name] for name, kind in _ACTIVATIONS.items() if kinds[name]}
        self.most_uses = max(weights.values(), default=0)
        self.output = _output(loss.grad_fn)
        self._skips = {node: short for node in self._depth if (short := self._short_way(node)) is not None}
        self.skips = len(self._skips)
        self.skips_from_norm = sum("Norm" in _kind(_unshaped(node)) for node in self._skips.values())

    def branch_ends(self) -> list[Tensor]:
        """The last weights of the branches that the skips go around."""
        found: dict[int, Tensor] = {}
        for node, short in self._skips.items():
            waiting, seen = [origin for origin in _inputs(node) if origin is not short], {short}
            while waiting:
                here = waiting.pop()
                seen.add(here)
                weight = _weight(_inputs(here)) if _kind(here) in _PRODUCTS else None
                if weight is not None:
                    found[id(weight.variable)] = weight.variable
                elif here not in self._skips:  # an inner branch has an end of its own
                    waiting += [origin for origin in _inputs(here) if origin not in seen]
        return list(found.values())

    def _short_way(self, node: Any) -> Any:
        """The input of a sum that its other input was made of, by way of at least one layer; None if there is none."""
        inputs = _inputs(node)
        if _kind(node) != "Add" or len(inputs) != 2:
            return None
        short, long = sorted(inputs, key=self._depth.__getitem__)
        if self._depth[short] == self._depth[long] or self._parents[short] < 2 or _kind(short) in _SPLITTING:
            return None  # what is split goes different ways with different parts: the steps of a sequence
        return short if self._is_made_of(long, short) else None

    def _is_made_of(self, node: Any, origin: Any) -> bool:
        earliest, seen, waiting = self._order[origin], {node}, [node]
        while waiting:
            for found in _inputs(waiting.pop()):
                if found is origin:
                    return True
                if found not in seen and self._order[found] > earliest:
                    seen.add(found)
                    waiting.append(found)
        return False


def _output(node: Any) -> tuple[str, str]:
    """The activation that a loss is taken of, and the loss; of several terms those of the first."""
    criterion = ""
    while node is not None and (kind := _kind(node)) not in _PRODUCTS:
        if kind == "LogSoftmax" or kind.endswith("Loss") or "BinaryCrossEntropy" in kind:
            criterion = kind
        elif kind == "Softmax" or kind in _ACTIVATIONS:
            return _ACTIVATIONS.get(kind, kind), criterion
        node = next(iter(_inputs(node)), None)
    return "", criterion


def _inputs(node: Any) -> list[Any]:
    return [origin for origin, _ in node.next_functions if origin is not None]


def _kind(node: Any) -> str:
    """``"Addmm"`` for ``AddmmBackward0``."""
    return str(node.name()).rpartition("::")[2].partition("Backward")[0]


def _inputs_first(root: Any) -> list[Any]:
    """All nodes, each after its inputs."""
    ordered: list[Any] = []
    seen, waiting = {root}, [(root, iter(_inputs(root)))]
    while waiting:
        node, inputs = waiting[-1]
        origin = next((origin for origin in inputs if origin not in seen), None)
        if origin is None:
            ordered.append(node)
            waiting.pop()
        else:
            seen.add(origin)
            waiting.append((origin, iter(_inputs(origin))))
    return ordered


def _weight(inputs: list[Any]) -> Any:
    """The leaf with two or more dimensions that a product gets straight, but for reshaping."""
    for node in inputs:
        found = _unshaped(node)
        if _kind(found) == "AccumulateGrad" and found.variable.ndim >= 2:
            return found
    return None


def _unshaped(node: Any) -> Any:
    while _kind(node) in _RESHAPING and len(_inputs(node)) == 1:
        (node,) = _inputs(node)
    return node


def _has_weight(module: nn.Module) -> bool:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return False
    return any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
