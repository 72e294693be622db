"""Faults: callbacks that break a run at a given step."""
