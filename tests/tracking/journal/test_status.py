from __future__ import annotations

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import true_status


@pytest.mark.parametrize(
    ("exception", "status"),
    [
        (None, "FINISHED finished"),
        (RuntimeError, "FAILED failed"),
        (KeyboardInterrupt, "KILLED interrupted"),
        (SystemExit, "KILLED exited"),
    ],
)
def test_the_status_is_true_however_a_run_ends(
    exception: type[BaseException] | None, status: str, client: MlflowClient
) -> None:
    run_id = client.create_run("0").info.run_id

    def block() -> None:
        with true_status(client, run_id):
            if exception is not None:
                raise exception

    if exception is None:
        block()
    else:
        with pytest.raises(exception):
            block()
    run = client.get_run(run_id)
    assert f"{run.info.status} {run.data.tags['grad.ended']}" == status
