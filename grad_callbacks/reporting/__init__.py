"""Reporting: the record of a run, and what is told of it."""
