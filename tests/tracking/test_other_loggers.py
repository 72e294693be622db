"""What other loggers get: the same scalars, and W&B the alerts."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from grad_callbacks import ClipNorm, GradientGuard
from grad_callbacks.callbacks import _wandb
from tests.support.helpers import Poisoned, fit, mlp

KEYS = {
    f"grad/{name}"
    for name in (
        "norm",
        "norm_clipped",
        "clip_coef",
        "decay_per_layer",
        "nonfinite_steps",
        "alerts",
        "lr_scale",
        "lr_effective",
    )
}


def train(logger: Any) -> GradientGuard:
    guard = GradientGuard({"exploding": [ClipNorm(0.1)]})
    fit(Poisoned(mlp(4, 8, 8, 2), factors={20: 1e3}), guard, logger=logger, log_every_n_steps=4)
    return guard


def test_csv(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    train(logger)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    assert set(rows[19]) >= KEYS
    assert float(rows[20]["grad/norm"]) > 100
    assert float(rows[20]["grad/norm_clipped"]) == pytest.approx(0.1)
    assert float(rows[20]["grad/alerts"]) == 1


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    train(logger)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert set(events.Tags()["scalars"]) >= KEYS
    clipped = {event.step: event.value for event in events.Scalars("grad/norm_clipped")}
    assert clipped[20] == pytest.approx(0.1)


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="grad", save_dir=tmp_path, offline=True)
    raised: list[dict[str, Any]] = []
    alert = type(logger.experiment).alert

    def noted(run: Any, **about: Any) -> None:
        raised.append(about)
        alert(run, **about)

    monkeypatch.setattr(type(logger.experiment), "alert", noted)
    guard = train(logger)
    logged = dict(logger.experiment.summary)
    wandb.finish()
    assert set(logged) >= KEYS
    [told] = raised
    assert told["title"] == "exploding gradients"
    assert guard.alerts[0].cause in told["text"]
    assert told["level"] in _wandb.LEVELS.values()


def test_an_alert_that_does_not_get_through_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_alerts = type("WandbLogger", (CSVLogger,), {})  # its run has no method to raise them
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        guard = train(without_alerts(tmp_path))
    assert guard.alerts
    assert "the alert could not be raised in W&B" in caplog.text
