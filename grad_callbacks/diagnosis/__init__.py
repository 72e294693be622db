"""Diagnosing: an alert in, the same alert with its likely cause out.

Knows torch only. The readers' order: ``follower`` (what is kept from step to step), ``diagnose`` (the door), ``case``
(what it may know), ``vanishing``, ``exploding`` and ``nonfinite`` (the decisions), ``examination`` (all probes of a
case), and one file for each probe.
"""

from grad_callbacks.diagnosis.activations import ActivationProbe
from grad_callbacks.diagnosis.case import Case
from grad_callbacks.diagnosis.diagnose import diagnose
from grad_callbacks.diagnosis.finding import CAUSES, Cause
from grad_callbacks.diagnosis.follower import Batch, Follower
from grad_callbacks.diagnosis.replay import undisturbed
from grad_callbacks.diagnosis.weights import weight_gains

__all__ = ["CAUSES", "ActivationProbe", "Batch", "Case", "Cause", "Follower", "diagnose", "undisturbed", "weight_gains"]
