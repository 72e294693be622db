"""The modules that own an optimizer's parameters, in the order the forward pass runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.measurement.layer_order import owners, parameters_by_layer
from grad_callbacks.measurement.norms import as_real, common_device
from grad_callbacks.measurement.sharding import Sharding, local

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, eq=False)
class Layers:
    """The parameters of one optimizer, grouped into layers.

    A layer is a module that owns parameters directly, or an entry of a list of parameters. A shared (tied) parameter
    belongs to the first layer that registers it. Frozen parameters are listed too: they may be unfrozen later.

    Attributes:
        names: Layer names by depth, ``names[0]`` is run first.
        depths: The place of each layer among all layers of the model, shape ``(layers,)``.
        parameters: The optimizer's parameters, layer by layer.
        shapes: The whole shape of each parameter, whatever part of it this process holds.
        owner: For each parameter the index of its layer in ``names``, shape ``(parameters,)``.
        group: For each parameter the index of its parameter group in the optimizer, shape ``(parameters,)``.
        is_embedding: True for each embedding layer, shape ``(layers,)``.
        activations: How often each activation module occurs in the model, by class name.
        are_normalised: The model has batch, layer or another normalisation somewhere.
        sharding: How the parameters lie over the processes; None if this one holds them all.
    """

    names: tuple[str, ...]
    depths: NDArray[np.int64]
    parameters: tuple[Tensor, ...]
    shapes: tuple[torch.Size, ...]
    owner: NDArray[np.int64]
    group: NDArray[np.int64]
    is_embedding: NDArray[np.bool_]
    activations: dict[str, int] = field(default_factory=dict)
    are_normalised: bool = False
    sharding: Sharding | None = None

    @cached_property
    def numel(self) -> NDArray[np.float64]:
        """Number of entries of each parameter."""
        return np.array([shape.numel() for shape in self.shapes], dtype=np.float64)

    @cached_property
    def is_weight(self) -> NDArray[np.bool_]:
        """True for each parameter with two or more dimensions: weights, not biases or norm scales."""
        return np.array([len(shape) >= 2 for shape in self.shapes], dtype=np.bool_)

    @cached_property
    def has_weight(self) -> NDArray[np.bool_]:
        """True for each layer that owns a weight."""
        return self.sum_over_parameters(self.is_weight.astype(np.float64)) > 0

    @cached_property
    def device(self) -> torch.device:
        """The device where numbers about the parameters are gathered."""
        return common_device([parameter.device for parameter in self.parameters])

    @cached_property
    def shares(self) -> Tensor:
        """Weight of this process's part of each parameter in a sum over all processes, on :attr:`device`."""
        return to_device(self.sharding.shares if self.sharding else [1.0] * len(self.shapes), self.device)

    @cached_property
    def ones(self) -> Tensor:
        """A one for each parameter, on :attr:`device`; not to be written to."""
        return torch.ones_like(self.shares)

    @cached_property
    def root_entries(self) -> NDArray[np.float64] | None:
        """Root of the number of each layer's entries, shape ``(layers,)``; None if one has none."""
        entries = self.sum_over_parameters(self.numel)
        return np.sqrt(entries) if (entries > 0).all() else None

    @cached_property
    def everywhere(self) -> NDArray[np.bool_]:
        """True for each layer; not to be written to."""
        return np.ones(len(self.names), dtype=np.bool_)

    @cached_property
    def profiled(self) -> NDArray[np.bool_]:
        """True for each layer that owns a weight and is no embedding; not to be written to."""
        return self.has_weight & ~self.is_embedding

    def gradient_shares(self) -> Tensor:
        """The same for the gradients as they are now."""
        if self.sharding is None:
            return self.shares
        found = self.sharding.shares_of_gradients(self.parameters)
        return self.shares if found == self.sharding.shares else to_device(found, self.device)

    @cached_property
    def are_plain(self) -> bool:
        """True if this process holds all parameters, and they are real."""
        return self.sharding is None and not any(parameter.is_complex() for parameter in self.parameters)

    def weights(self) -> list[Tensor]:
        """This process's part of each parameter, as real numbers that share its memory."""
        if self.are_plain:
            return list(self.parameters)
        return [as_real(local(parameter)) for parameter in self.parameters]

    def gradients(self, to_change: bool = False) -> list[Tensor | None]:
        """This process's part of each parameter's gradient, as real and dense numbers.

        Args:
            to_change: They share the gradient's memory. A sparse gradient is then replaced by its coalesced form: a row
                that was used twice has two entries until they are added up, and would be rounded differently from what
                the optimizer does.
        """
        gradients = [parameter.grad for parameter in self.parameters]
        if self.are_plain and not any(gradient is not None and gradient.is_sparse for gradient in gradients):
            return gradients
        return [None if p.grad is None else as_real(local(_dense(p, to_change))) for p in self.parameters]

    def sum_over_parameters(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum a value per parameter, shape ``(parameters,)``, into one per layer, shape ``(layers,)``."""
        return np.bincount(self.owner, weights=values, minlength=len(self.names)).astype(np.float64, copy=False)

    def sums_over_parameters(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for several readings at once: shape ``(readings, parameters)`` into ``(readings, layers)``."""
        count = len(values)
        if count not in self._owners:
            self._owners[count] = (np.arange(count)[:, None] * len(self.names) + self.owner).reshape(-1)
        sums = np.bincount(self._owners[count], weights=values.reshape(-1), minlength=count * len(self.names))
        return sums.astype(np.float64, copy=False).reshape(count, -1)

    @cached_property
    def _owners(self) -> dict[int, NDArray[np.int64]]:
        return {}

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, model: nn.Module, order: Sequence[str] = ()) -> Layers:
        """Group the parameters of ``optimizer``.

        Args:
            optimizer: Its ``param_groups`` say which parameters count.
            model: Gives the names and, for layers that are not in ``order``, their order.
            order: Layer names in the order the forward pass runs them, as far as it is known.
        """
        owner_of = {id(parameter): name for name, parameter in reversed(parameters_by_layer(model))}
        embeddings = {name for name, module in owners(model) if isinstance(module, _EMBEDDINGS)}
        depth = {name: index for index, name in enumerate(all_by_depth(model, order))}
        mine = [(p, i) for i, group in enumerate(optimizer.param_groups) for p in group["params"]]
        layer_of = [owner_of.get(id(p), f"(parameter {i} outside the model)") for i, (p, _) in enumerate(mine)]
        for name in layer_of:
            depth.setdefault(name, len(depth))
        names = sorted(set(layer_of), key=depth.__getitem__)
        index = {name: i for i, name in enumerate(names)}
        by_layer = sorted(range(len(mine)), key=lambda i: index[layer_of[i]])
        parameters = tuple(mine[i][0] for i in by_layer)
        sharding = Sharding.of(model, parameters)
        return cls(
            names=tuple(names),
            depths=np.array([depth[name] for name in names], dtype=np.int64),
            parameters=parameters,
            shapes=sharding.shapes if sharding else tuple(p.shape for p in parameters),
            owner=np.array([index[layer_of[i]] for i in by_layer], dtype=np.int64),
            group=np.array([mine[i][1] for i in by_layer], dtype=np.int64),
            is_embedding=np.array([name in embeddings for name in names], dtype=np.bool_),
            activations=dict(_activations(model)),
            are_normalised=any("Norm" in type(module).__name__ for module in model.modules()),
            sharding=sharding,
        )


def all_by_depth(model: nn.Module, order: Sequence[str]) -> list[str]:
    """All layer names by depth; one that is not in ``order`` follows its predecessor in the order of registration."""
    rank = {name: place for place, name in enumerate(order)}
    placed: list[tuple[int, str]] = []
    last = -1
    for layer, _ in parameters_by_layer(model):
        last = rank.get(layer, last)
        placed.append((last, layer))
    return list(dict.fromkeys(layer for _, layer in sorted(placed, key=lambda pair: pair[0])))


def _dense(parameter: Tensor, to_change: bool) -> Tensor:
    """The stored entries of a parameter's gradient, each row once."""
    assert parameter.grad is not None
    if not parameter.grad.is_sparse:
        return parameter.grad
    coalesced = parameter.grad.coalesce()
    if to_change:
        parameter.grad = coalesced
    return coalesced.values()


def _activations(model: nn.Module) -> Iterable[tuple[str, int]]:
    kinds = Counter(
        type(module).__name__ for module in model.modules() if type(module).__module__ == "torch.nn.modules.activation"
    )
    return kinds.items()
