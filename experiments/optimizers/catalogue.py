"""The optimizers that are installed, each made with its defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

Make = Callable[[nn.Module], torch.optim.Optimizer]

STEPS = 60  # of a run
# What some cannot be made without.
NEEDED: dict[str, Any] = {"num_iterations": STEPS, "num_data": 512, "lr": 1e-3}
# Packages, and the modules of theirs that have optimizers.
PACKAGES = {
    "torch": "torch.optim",
    "pytorch_optimizer": "pytorch_optimizer",
    "timm": "timm.optim",
    "schedulefree": "schedulefree",
    "prodigyopt": "prodigyopt",
    "lion_pytorch": "lion_pytorch",
    "torchao": "torchao.optim",
    "bitsandbytes": "bitsandbytes.optim",
}


def catalogue(packages: list[str] | None = None) -> dict[str, Make]:
    """Return how to make each optimizer, by package and class; of packages that are installed.

    Args:
        packages: These only.
    """
    found: dict[str, Make] = {}
    seen: set[type] = set()
    for package in packages or list(PACKAGES):
        for name, cls in _classes(PACKAGES[package]):
            if cls not in seen:
                seen.add(cls)
                found[f"{package}.{name}"] = partial(made, cls)
    return found


def _classes(module: str) -> Iterator[tuple[str, type[torch.optim.Optimizer]]]:
    try:
        loaded = import_module(module)
    except Exception:  # not installed, or not for this torch: it then fails in many ways
        return
    for name, value in sorted(vars(loaded).items()):
        if _is_optimizer(value):
            yield name, value


def _is_optimizer(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer


def made(cls: type[torch.optim.Optimizer], model: nn.Module) -> torch.optim.Optimizer:
    """Make an optimizer with its defaults; one that wraps another is given AdamW.

    Raises:
        Exception: If the class needs more than that.
    """
    wanted = [p for p in list(inspect.signature(cls).parameters.values())[1:] if p.default is inspect.Parameter.empty]
    needed = {p.name: NEEDED[p.name] for p in wanted if p.name in NEEDED}
    takes_other = next(iter(inspect.signature(cls).parameters), "") in ("optimizer", "base_optimizer", "base")
    first: Any = torch.optim.AdamW(model.parameters(), 1e-3) if takes_other else model.parameters()
    optimizer = cls(first, **needed)
    if hasattr(optimizer, "train"):  # free of a schedule: they have two modes
        optimizer.train()
    return optimizer
