"""The doctor: what is wrong with a training, and which change of model or optimizer cures it.

In the order of reading: ``setup`` (what is trained), ``sources`` (where it comes from), ``inspection`` (what is read
off the first step), ``attempt`` (one short training, and its result), ``judging`` (is it cured), ``cures/`` (one change
a file), ``choosing`` (which changes, in which order), ``search`` (all of it, within a budget), ``recording`` (MLflow),
``prescription`` (what is printed) and ``command`` (the command line).
"""

from __future__ import annotations

from grad_callbacks.doctor.search import Budget, Doctor
from grad_callbacks.doctor.setup import Setup, Source
from grad_callbacks.doctor.sources import ImportedSource, LightningCLISource

__all__ = ["Budget", "Doctor", "ImportedSource", "LightningCLISource", "Setup", "Source"]
