"""Judging a run that has ended, by the tables it has left."""
