from __future__ import annotations

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import true_status


@pytest.mark.parametrize(
    ("exception", "status"),
    [(None, "FINISHED"), (RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
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
    assert client.get_run(run_id).info.status == status
