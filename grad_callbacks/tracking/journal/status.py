"""A run's status that is correct however the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def true_status(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark the run FINISHED, KILLED (Ctrl-C, SIGTERM, exit) or FAILED (any other exception) when the block ends.

    Lightning's own logger leaves a run RUNNING if it crashes outside of ``fit``, and marks Ctrl-C as FAILED. After a
    SIGKILL the run stays RUNNING.

    Args:
        client: Of the server that has the run.
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
