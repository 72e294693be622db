"""Diagnosis: an alert in, the same alert with its likely cause out.

Knows torch only. In the order of reading: ``run_context`` (what is kept from step to step), ``diagnose`` (the entry
point), ``case`` (what is known about a step), ``vanishing``, ``exploding`` and ``nonfinite`` (the decisions, with
``exploding_findings`` and ``advice`` for what they say), ``finding`` (their result), ``probes`` (all probes of a case),
and one file for each probe: ``activations``, ``batch_outlier``, ``first_nonfinite``, ``model_structure``,
``signal_flow``, ``step_trial``, ``weight_gains``.
"""

from __future__ import annotations

from grad_callbacks.detection.diagnosis.activations import ActivationProbe
from grad_callbacks.detection.diagnosis.case import Case
from grad_callbacks.detection.diagnosis.diagnose import diagnose
from grad_callbacks.detection.diagnosis.finding import CAUSES, Cause
from grad_callbacks.detection.diagnosis.run_context import RunContext
from grad_callbacks.detection.diagnosis.weight_gains import weight_gains

__all__ = ["CAUSES", "ActivationProbe", "Case", "Cause", "RunContext", "diagnose", "weight_gains"]
