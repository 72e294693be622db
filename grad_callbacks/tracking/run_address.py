"""Where a run's page is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from grad_callbacks.tracking.secrets.masking import mask_address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = "gradients/run.html"
_NAMED = 10  # runs that an error names


def run_address(client: MlflowClient, store: str, wanted: str) -> str:
    """Return the address of a run's page, without secrets.

    On an MLflow server that is the run's page there; in a local store the file ``gradients/run.html``.

    Args:
        client: Of the store.
        store: Its address.
        wanted: The run's id, its beginning, its name, or ``"latest"``. Of several runs of a name, the newest.

    Raises:
        ValueError: If there is no such run, an id's beginning fits several, or the run has no page.
    """
    run = _run(client, wanted)
    run_id = str(run.info.run_id)
    if store.startswith(("http://", "https://")):
        place = f"#/experiments/{quote(str(run.info.experiment_id))}/runs/{quote(run_id)}"
        return f"{mask_address(store).rstrip('/')}/{place}"
    return _page(client, run).resolve().as_uri()


def _page(client: MlflowClient, run: Run) -> Path:
    """The page in a local store's folder; from elsewhere a copy in the folder for temporary files."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.file_utils import local_file_uri_to_path

    uri, run_id = str(run.info.artifact_uri), str(run.info.run_id)
    if uri.startswith(("file:", "/", ".")) or "://" not in uri:
        page = Path(local_file_uri_to_path(uri)) / PAGE
        if page.is_file():
            return page
    else:
        with suppress(MlflowException, OSError):
            return Path(client.download_artifacts(run_id, PAGE))
    raise ValueError(
        f"run {run_id} has no page {PAGE}: it had no GradientMonitor, or has not ended yet (see it in MLflow: "
        "grad-callbacks ui)"
    )


def _run(client: MlflowClient, wanted: str) -> Run:
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs: list[Run] = []
    token: str | None = None
    while experiments:
        page = client.search_runs(experiments, order_by=["attributes.start_time DESC"], page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    by_name = [run for run in runs if wanted in (run.info.run_id, run.info.run_name, "latest")]
    fitting = by_name[:1] or [run for run in runs if wanted and run.info.run_id.startswith(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f"{len(fitting)} runs begin with {wanted!r}: give more of the id")
    names = ", ".join(repr(run.info.run_name) for run in runs[:_NAMED]) or "none"
    raise ValueError(f"there is no run {wanted!r} in this store; the newest are: {names}")
