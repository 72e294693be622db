"""What an MLflow run holds after a training, on a real store."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run

from grad_callbacks import ClipNorm, GradientGuard, GradientMonitor
from tests.helpers import Poisoned, Regression, fit, mlp


def logged(
    client: MlflowClient, store: str, tmp_path: Path, *callbacks: Any, module: Any = None, **options: Any
) -> Run:
    """Train with Lightning's own MLflow logger and return the run."""
    logger = MLFlowLogger("plugin", tracking_uri=store, artifact_location=(tmp_path / "artifacts").as_uri())
    module = module or Poisoned(mlp(4, 8, 8, 2), factors={5: 1e3, 20: 1e3})
    with contextlib.suppress(RuntimeError):
        fit(module, *callbacks, logger=logger, log_every_n_steps=4, **options)
    return client.get_run(logger.run_id)


def artifact(client: MlflowClient, run: Run, name: str) -> Path:
    uri = client.get_run(run.info.run_id).info.artifact_uri
    return Path(download_artifacts(f"{uri}/gradients/{name}"))


def table(path: Path) -> pd.DataFrame:
    content = json.loads(path.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def test_a_guarded_run_tells_its_story(client: MlflowClient, store: str, tmp_path: Path) -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1)]})
    run = logged(client, store, tmp_path, guard)
    tags = run.data.tags
    assert tags["grad.verdict"] == "exploding"
    assert tags["grad.outcome"] == guard.outcome
    assert tags["grad.remedies"] == "ClipNorm"
    assert tags["grad.first_alert_step"] == "20"
    assert tags["grad.cause"] == guard.alerts[0].cause
    assert tags["mlflow.note.content"] == guard.report()

    norms = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "grad/norm")}
    clipped = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "grad/norm_clipped")}
    assert sorted(norms) == [0, 3, 7, 11, 15, 19, 20, 23, 27, 31]
    assert norms[20] > 100
    assert clipped[20] == pytest.approx(0.1)

    alerts = table(artifact(client, run, "alerts.json"))
    assert alerts["kind"].tolist() == ["exploding"]
    assert "ratio=" in alerts["evidence"][0]
    interventions = table(artifact(client, run, "interventions.json"))
    assert interventions[["step", "remedy"]].to_numpy().tolist() == [[20, "ClipNorm"]]
    pd.testing.assert_frame_equal(pd.read_parquet(artifact(client, run, "history.parquet")), guard.history())
    assert artifact(client, run, "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert artifact(client, run, "report.md").read_text() == guard.report()
    assert run.info.status == "FINISHED"


def test_a_healthy_run_says_so(client: MlflowClient, store: str, tmp_path: Path) -> None:
    run = logged(client, store, tmp_path, GradientMonitor(), module=Regression(mlp(4, 2)))
    assert run.data.tags["grad.verdict"] == run.data.tags["grad.outcome"] == "healthy"
    assert run.data.tags["grad.remedies"] == "none"
    assert "grad.cause" not in run.data.tags
    assert table(artifact(client, run, "alerts.json")).empty


def test_the_story_is_told_after_a_crash_too(client: MlflowClient, store: str, tmp_path: Path) -> None:
    class Fails(Poisoned):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 25:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    run = logged(client, store, tmp_path, GradientGuard(), module=Fails(mlp(4, 8, 8, 2), factors={20: math.nan}))
    assert run.data.tags["grad.verdict"] == "nonfinite"
    assert artifact(client, run, "history.parquet").exists()
    assert run.info.status == "FAILED"


def test_non_finite_values_do_not_enter_the_charts(client: MlflowClient, store: str, tmp_path: Path) -> None:
    factors = dict.fromkeys(range(20, 32), math.nan)
    run = logged(client, store, tmp_path, GradientMonitor(), module=Poisoned(mlp(4, 8, 2), factors=factors))
    for name in ("norm", "norm_clipped", "clip_coef", "decay_per_layer"):
        values = [m.value for m in client.get_metric_history(run.info.run_id, f"grad/{name}")]
        assert all(abs(value) < 1e6 for value in values), name
    assert run.data.metrics["grad/nonfinite_steps"] == 12


def test_a_store_that_fails_at_the_end_costs_a_warning(
    client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(MlflowClient, "log_table", refuse)
    with pytest.warns(UserWarning, match="could not be written to MLflow run .*: disk full"):
        run = logged(client, store, tmp_path, GradientGuard())
    assert run.info.status == "FINISHED"


def test_a_long_report_is_cut_at_a_line() -> None:
    from grad_callbacks.tracking.story import NOTE_LIMIT, _cut

    report = "\n".join("x" * 99 for _ in range(200))
    assert len(_cut(report)) <= NOTE_LIMIT
    assert _cut(report).endswith("x\n…")
    assert _cut("short") == "short"
