"""A rule with a kind of its own: its alerts reach everything that built-in ones reach."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from grad_callbacks import Alert, GradientGuard, GradientMonitor, Reading, Rule
from tests.support.helpers import Regression, fit, mlp


class Plateau(Rule):
    """Raises an alert at step 12."""

    kind = "plateau"

    def judge(self, reading: Reading) -> Alert | None:
        if reading.step != 12:
            return None
        return Alert("plateau", "warning", 12, ("model.0",), "the loss stays at 2", {"loss": 2.0}, "lr", "raise lr")

    @property
    def active(self) -> bool:
        return True


class WandbLogger(CSVLogger):
    """Named as W&B's, by which it is recognised; keeps the alerts."""

    raised: list[dict[str, Any]]

    @property
    def experiment(self) -> Any:
        run = super().experiment
        run.alert = lambda **about: self.raised.append(about)
        return run


@pytest.mark.parametrize("cls", [GradientMonitor, GradientGuard])
def test_it_reaches_log_callable_wandb_report_and_history(
    cls: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[Alert] = []
    logger = WandbLogger(tmp_path)
    logger.raised = []
    callback = cls(rules=[Plateau(), "NonFinite"], on_alert=called.append)
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        fit(Regression(mlp(4, 8, 2)), callback, logger=logger)
    assert called == callback.alerts
    assert [alert.kind for alert in called] == ["plateau"]
    lines = ["step 12: plateau (warning): the loss stays at 2", "likely cause: lr (seen in model.0)"]
    assert "\n  ".join([*lines, "what to change: raise lr"]) in caplog.text
    [raised] = logger.raised
    assert (raised["title"], raised["level"]) == ("plateau", "WARN")
    assert raised["text"].splitlines()[:2] == lines
    assert callback.verdict == "plateau"
    assert callback.history()["step"].nunique() == 32
    summary = dict(callback.record.summary())
    assert summary["Wrong"].startswith("Plateau at step 12 in model.0.")
    assert summary["Helped"].startswith("Still active: plateau at the end")
    report = callback.report()
    assert report.startswith("# Gradients: plateau, unrepaired")
    assert "- **step 12: plateau (warning)**: the loss stays at 2" in report
    assert "plateau gradients" not in report


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    first, second = GradientGuard(rules=[Plateau()]), GradientGuard(rules=[Plateau()])
    fit(Regression(mlp(4, 8, 2)), first)
    second.load_state_dict(first.state_dict())
    assert second.alerts == first.alerts
