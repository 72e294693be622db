"""A run's status that is correct however the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from grad_callbacks.tracking.ending import ENDED_TAG, Ending, ending_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def true_status(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark how the run ended when the block ends: its status and the tag ``grad.ended``.

    FINISHED; KILLED if it was ``pruned`` by Optuna, ``preempted`` by SIGTERM, ``interrupted`` by Ctrl-C or
    ``exited``; FAILED by any other exception.

    Lightning's own logger leaves a run RUNNING if it crashes outside of ``fit``, and marks Ctrl-C as FAILED. After a
    SIGKILL the run stays RUNNING.

    Args:
        client: Of the server that has the run.
        run_id: The run.
    """
    try:
        yield
    except BaseException as error:
        _end(client, run_id, ending_of(error))
        raise
    _end(client, run_id, ending_of(None))


def _end(client: MlflowClient, run_id: str, ending: Ending) -> None:
    client.set_tag(run_id, ENDED_TAG, ending.word)
    client.set_terminated(run_id, ending.status)
