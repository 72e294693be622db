"""Trial by experiment: when an alert comes, try the remedies out for some steps and keep the one that does best."""

from __future__ import annotations

from grad_callbacks.trial.contest import Contest
from grad_callbacks.trial.result import TrialResult
from grad_callbacks.trial.settings import Trial

__all__ = ["Contest", "Trial", "TrialResult"]
