"""Treating: from alerts to interventions."""
