"""Trial by experiment: when an alert comes, try the remedies out for some steps and keep the one that does best.

The readers' order: ``settings`` (how), ``result`` (what came of it), ``contest`` (the door), ``arm`` (what is tried),
``stage`` and ``twin`` (how nothing of it stays), ``ring`` (the batches), ``together`` (replicas).
"""

from __future__ import annotations

from grad_callbacks.treatment.trial.settings import Trial

__all__ = ["Trial"]
