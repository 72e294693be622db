"""Diagnosing: an alert in, the same alert with its likely cause out.

Knows torch only. The readers' order: ``follower`` (what is kept from step to step), ``diagnose`` (the door), ``case``
(what it may know), ``vanishing``, ``exploding`` and ``nonfinite`` (the decisions), ``examination`` (all probes of a
case), and one file for each probe.
"""

from grad_callbacks.detection.diagnosis.activations import ActivationProbe
from grad_callbacks.detection.diagnosis.case import Case
from grad_callbacks.detection.diagnosis.diagnose import diagnose
from grad_callbacks.detection.diagnosis.finding import CAUSES, Cause
from grad_callbacks.detection.diagnosis.run_context import RunContext
from grad_callbacks.detection.diagnosis.weight_gains import weight_gains

__all__ = ["CAUSES", "ActivationProbe", "Case", "Cause", "RunContext", "diagnose", "weight_gains"]
