"""Tracking: what MLflow holds of a run, and how runs are compared. The only place that imports MLflow."""

from grad_callbacks.tracking.compare import compare, comparison_table
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
    "prepare_store",
    "record_story",
    "sync",
    "true_status",
]
