"""A run's status that is true however the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient


@contextmanager
def true_status(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark the run FINISHED, KILLED (Ctrl-C, SIGTERM, exit) or FAILED (any other exception) when the block ends.

    Lightning's own logger leaves a run RUNNING if the crash is outside ``fit``, and calls Ctrl-C a failure.
    A process that is killed outright cannot say anything: its run stays RUNNING.

    Args:
        client: Where the run is kept.
        run_id: The run.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        client.set_terminated(run_id, "KILLED")
        raise
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
