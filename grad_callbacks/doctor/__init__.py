"""The doctor: what is wrong with a training, and which change of model or optimizer cures it.

In the order of reading: ``setup`` (what is trained), ``sources`` (where it comes from), ``inspection`` (what is read
off the first step), ``attempt`` (one short training, and its result), ``judging`` (is it cured), ``cures/`` (one change
a file), ``choosing`` (which changes, in which order), ``search`` (all of it, within a budget), ``recording`` (MLflow),
``prescription`` (what is printed) and ``command`` (the command line). Names are loaded when they are used: the command
line needs neither torch nor MLflow to print its help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grad_callbacks.doctor.search import Budget, Doctor
    from grad_callbacks.doctor.setup import Setup, Source
    from grad_callbacks.doctor.sources import ImportedSource, LightningCLISource

_MODULE_OF = {
    "Budget": "search",
    "Doctor": "search",
    "ImportedSource": "sources",
    "LightningCLISource": "sources",
    "Setup": "setup",
    "Source": "setup",
}

__all__ = ["Budget", "Doctor", "ImportedSource", "LightningCLISource", "Setup", "Source"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
