"""Tracking: what MLflow holds of a run, and how runs are compared. The only place that imports MLflow."""

from grad_callbacks.tracking.comparison.compare import compare, comparison_table, over_seeds
from grad_callbacks.tracking.comparison.report import record_comparison, record_sweep, write_comparison
from grad_callbacks.tracking.journal.status import true_status
from grad_callbacks.tracking.journal.sync import Synced, sync
from grad_callbacks.tracking.logger import JournaledMLFlowLogger
from grad_callbacks.tracking.run_page.story import Story, record_story
from grad_callbacks.tracking.store import StoreError, default_artifacts, default_journals, default_store, prepare_store

__all__ = [
    "JournaledMLFlowLogger",
    "StoreError",
    "Story",
    "Synced",
    "compare",
    "comparison_table",
    "default_artifacts",
    "default_journals",
    "default_store",
    "over_seeds",
    "prepare_store",
    "record_comparison",
    "record_story",
    "record_sweep",
    "sync",
    "true_status",
    "write_comparison",
]
