"""Deciding: which remedies answer which alert, in which order, and when they are withdrawn."""

from grad_callbacks.treatment.prescription.prescription import Prescription

__all__ = ["Prescription"]
