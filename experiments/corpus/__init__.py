"""The corpus: labelled runs that every detector is scored on.

Each scenario is a short file ``conf/experiment/corpus/<name>.yaml``. A run of it is recorded once, with all that a
rule may look at; rules are then judged on the recording, without training again. How a run is labelled, from its
outcome alone, is in :mod:`experiments.corpus.labels`.
"""

from experiments.corpus.labels import FAILS, Label, Labelled, label_runs, lost_at, onset_of
from experiments.corpus.making import Job, describe, missing, plugin_key, record_all, rules_key
from experiments.corpus.recording import Activation, Recording, Segment, Stream
from experiments.corpus.scenarios import CONF, Scenario, load_scenarios, quick, with_references

__all__ = [
    "CONF",
    "FAILS",
    "Activation",
    "Job",
    "Label",
    "Labelled",
    "Recording",
    "Scenario",
    "Segment",
    "Stream",
    "describe",
    "label_runs",
    "load_scenarios",
    "lost_at",
    "missing",
    "onset_of",
    "plugin_key",
    "quick",
    "record_all",
    "rules_key",
    "with_references",
]
