"""Tracking: what MLflow holds of a run, and how runs are compared. The only room that imports MLflow.

A name is loaded when it is first used: ``from grad_callbacks.tracking import sync`` loads neither Lightning nor
plotting.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from grad_callbacks._utils.extras import needs

if TYPE_CHECKING:
    from grad_callbacks.tracking.comparison.compare import compare
    from grad_callbacks.tracking.comparison.over_seeds import over_seeds
    from grad_callbacks.tracking.comparison.report import record_comparison, record_sweep, write_comparison
    from grad_callbacks.tracking.comparison.tables import comparison_table
    from grad_callbacks.tracking.journal.status import true_status
    from grad_callbacks.tracking.journal.sync import Synced, sync
    from grad_callbacks.tracking.logger import JournaledMLFlowLogger
    from grad_callbacks.tracking.run_page.run_report import RunReport, record_report
    from grad_callbacks.tracking.store import (
        StoreError,
        default_artifacts,
        default_journals,
        default_store,
        prepare_store,
    )

_NAMES = {
    "comparison.compare": ("compare",),
    "comparison.over_seeds": ("over_seeds",),
    "comparison.report": ("record_comparison", "record_sweep", "write_comparison"),
    "comparison.tables": ("comparison_table",),
    "journal.status": ("true_status",),
    "journal.sync": ("Synced", "sync"),
    "logger": ("JournaledMLFlowLogger",),
    "run_page.run_report": ("RunReport", "record_report"),
    "store": ("StoreError", "default_artifacts", "default_journals", "default_store", "prepare_store"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
# Former names until 0.3: what replaces them, and what still takes their arguments.
_RENAMED = {"Story": ("RunReport", "story"), "record_story": ("record_report", "record_report")}

__all__ = [
    "JournaledMLFlowLogger",
    "RunReport",
    "StoreError",
    "Synced",
    "compare",
    "comparison_table",
    "default_artifacts",
    "default_journals",
    "default_store",
    "over_seeds",
    "prepare_store",
    "record_comparison",
    "record_report",
    "record_sweep",
    "sync",
    "true_status",
    "write_comparison",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from warnings import warn

        new, adapter = _RENAMED[name]
        warn(f"grad_callbacks.tracking.{name} is now called {new}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(f"{__name__}.{_MODULE_OF[new]}"), adapter)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("mlflow", f"{__name__}.{name}"):
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
