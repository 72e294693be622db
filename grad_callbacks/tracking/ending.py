"""How a run ended: MLflow's status, and a word that says why."""

from __future__ import annotations

from dataclasses import dataclass

ENDED_TAG = "grad.ended"
STOPPED = ("pruned", "preempted", "interrupted", "exited", "killed")  # ended early, and not by an error


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        status: MLflow's word: ``FINISHED``, ``FAILED`` or ``KILLED``.
        word: The tag ``grad.ended``: ``finished``, ``failed`` (by an exception), ``pruned`` (Optuna), ``preempted``
            (SIGTERM), ``interrupted`` (Ctrl-C) or ``exited`` (``sys.exit``).
    """

    status: str
    word: str


def ending_of(error: object) -> Ending:
    """Return how a run ended that an exception has ended; None for a run without one.

    Optuna's and Lightning's exceptions are known by their names, so that neither is imported for it.
    """
    if error is None:
        return Ending("FINISHED", "finished")
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        error = error.__context__  # Lightning turns Ctrl-C into an exit
    names = {cls.__name__ for cls in type(error).__mro__}
    if "TrialPruned" in names:
        return Ending("KILLED", "pruned")
    if "SIGTERMException" in names:
        return Ending("KILLED", "preempted")
    if isinstance(error, KeyboardInterrupt):
        return Ending("KILLED", "interrupted")
    if isinstance(error, SystemExit):
        return Ending("KILLED", "exited")
    return Ending("FAILED", "failed")


def ended_word(status: str, tag: str) -> str:
    """Return how a run ended by its status on the server and its tag, which may be of an earlier part of the run."""
    if status == "KILLED":
        return tag if tag in STOPPED else "killed"
    return status.lower()
