"""Tracking: what MLflow holds of a run, and how runs are compared. The only place that imports MLflow."""

from grad_callbacks.tracking.compare import compare, comparison_table, over_seeds
from grad_callbacks.tracking.comparison import record_comparison, record_sweep, write_comparison
from grad_callbacks.tracking.logger import JournaledMLFlowLogger
from grad_callbacks.tracking.status import true_status
from grad_callbacks.tracking.store import (
    StoreError,
    default_artifacts,
    default_journals,
    default_store,
    prepare_store,
)
from grad_callbacks.tracking.story import Story, record_story
from grad_callbacks.tracking.sync import Synced, sync

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
