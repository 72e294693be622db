"""Trial by experiment: when an alert comes, try the remedies out for some steps and keep the one that does best.

Read in this order: ``settings`` (the user's choices), ``contest`` (which remedies are tried, and which one wins),
``candidate`` (the steps of one of them), ``sandbox`` and ``optimizer_copy`` (why nothing of it stays),
``batch_buffer`` (the batches), ``replicas`` (several processes).
"""

from __future__ import annotations

from grad_callbacks.treatment.trial.settings import Trial

__all__ = ["Trial"]
