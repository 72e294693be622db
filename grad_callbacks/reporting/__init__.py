"""Reporting: the record of a run, its history, summary and report."""
