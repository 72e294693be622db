"""What a user sees while a training runs: a line at the start, the norm in the bar, the summary at the end."""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from grad_callbacks import GradientGuard, GradientMonitor
from grad_callbacks._utils.console import LOGGER
from tests.support.helpers import Poisoned, Regression, batches, fit, mlp, trainer


def lines(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """What a callback of that class has said at level INFO."""
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    return [text for text in said if text.startswith(f"{name}: ")]


class Bars(Callback):
    """Keeps what the progress bar shows after each batch."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        assert trainer.progress_bar_callback is not None
        self.shown.append(dict(trainer.progress_bar_callback.get_metrics(trainer, pl_module)))


def test_a_healthy_run_is_one_line_at_the_start_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    fit(Regression(mlp(4, 8, 2)), GradientMonitor(rules=["Exploding", "NonFinite"]))
    assert lines(caplog, "GradientMonitor") == [
        "GradientMonitor: 2 layers watched; rules Exploding, NonFinite; no logger",
        "GradientMonitor: healthy: no alert in 32 readings of 2 layers, nothing was changed",
    ]


def test_a_run_that_was_treated_says_what_was_done_and_what_to_change(caplog: pytest.LogCaptureFixture) -> None:
    guard = GradientGuard({"nonfinite": ["SkipStep"]})
    fit(Poisoned(mlp(4, 8, 2), factors={15: math.nan}), guard)
    start, end = lines(caplog, "GradientGuard")
    assert "remedies SkipStep; no logger" in start
    head, *rest = end.splitlines()
    assert head.startswith(f"GradientGuard: nonfinite gradients, {guard.outcome}: 1 alert at step 15")
    assert [line.split(":")[0].strip() for line in rest] == ["done", "what to change", "report"]
    assert "SkipStep from step 15" in rest[0]
    assert rest[1].strip().removeprefix("what to change: ") in guard.alerts[0].advice


def test_the_report_is_told_where_it_was_written_and_the_logger_where_it_writes(
    store: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from lightning.pytorch.loggers import MLFlowLogger

    mlflow_logger, guard = MLFlowLogger("here", tracking_uri=store), GradientGuard("observe")
    factors = {15: math.nan}
    fit(Poisoned(mlp(4, 8, 2), factors=factors), guard, logger=[CSVLogger(tmp_path), mlflow_logger])
    start, end = lines(caplog, "GradientGuard")
    assert f"preset 'observe'; logs to CSV in {tmp_path}" in start
    assert f"MLflow experiment 'here' at {store}" in start
    assert f"report: MLflow run {mlflow_logger.run_id}, gradients/run.html" in end


def test_the_address_of_a_store_is_told_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    from grad_callbacks.tracking import JournaledMLFlowLogger
    from tests.support.servers import NO_SERVER

    logger = JournaledMLFlowLogger("here", tracking_uri=NO_SERVER.replace("//", "//me:hush@"), probe_timeout=0.1)
    fit(Regression(mlp(4, 8, 2)), GradientMonitor(), logger=logger, max_steps=2)
    assert "MLflow experiment 'here' at http" in lines(caplog, "GradientMonitor")[0]
    assert "hush" not in caplog.text
    logger.close()


def test_an_interrupted_run_has_its_summary_too(caplog: pytest.LogCaptureFixture) -> None:
    class Stops(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 10:
                raise ValueError("no more")
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match="no more"):
        fit(Stops(mlp(4, 8, 2)), GradientMonitor())
    assert len(lines(caplog, "GradientMonitor")) == 2
    assert "in 10 readings" in lines(caplog, "GradientMonitor")[1]


def test_each_fit_says_it_once_and_validate_test_and_predict_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Whole(Regression):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return self.training_step(batch, batch_idx)

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(batch[0])

        test_step = validation_step

    model, monitor = Whole(mlp(4, 8, 2)), GradientMonitor()
    run = trainer(monitor, max_epochs=2)
    for _ in range(2):
        run.fit(model, batches(), batches())
        run.fit_loop.max_epochs = 4
    assert len(lines(caplog, "GradientMonitor")) == 4
    caplog.clear()
    for act in (run.validate, run.test, run.predict):
        act(model, batches())
    assert lines(caplog, "GradientMonitor") == []


def test_other_ranks_say_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = GradientMonitor()
    run = trainer(monitor, enable_progress_bar=True)
    monkeypatch.setattr(type(run.strategy), "is_global_zero", False)
    bars = Bars()
    run.callbacks.append(bars)  # type: ignore[attr-defined]
    run.fit(Regression(mlp(4, 8, 2)), batches())
    assert lines(caplog, "GradientMonitor") == []
    assert not any("gradients" in shown for shown in bars.shown)


def test_both_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    bars = Bars()
    monitor = GradientMonitor(progress_bar=False, summary=False)
    fit(Regression(mlp(4, 8, 2)), monitor, bars, enable_progress_bar=True)
    assert len(lines(caplog, "GradientMonitor")) == 1
    assert not any("gradients" in shown for shown in bars.shown)
    with pytest.raises(ValueError, match="progress_bar must be True or False, got 'no'"):
        GradientGuard(progress_bar="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="summary must be True or False"):
        GradientGuard(summary=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_the_bar_shows_norm_and_verdict_while_it_trains_and_is_then_as_before(
    bar: type[ProgressBar], capfd: pytest.CaptureFixture[str]
) -> None:
    # A second callback, as a guard beside a monitor, adds nothing twice.
    shown, made, monitor = Bars(), bar(), GradientMonitor()
    model = Poisoned(mlp(4, 8, 2), factors={15: math.nan})
    run = fit(model, monitor, GradientGuard("observe"), shown, made, enable_progress_bar=True)
    norms = [f"{value:.3g}" for value in monitor.step_series.to_frame()["norm"]]
    assert [entry["grad_norm"] for entry in shown.shown] == norms
    assert [entry["gradients"] for entry in shown.shown] == ["no alert"] * 15 + ["nonfinite"] * 17
    assert "grad_norm" not in made.get_metrics(run, model)
    assert "get_metrics" not in vars(made)
    assert "grad_norm" in "".join(capfd.readouterr())


def test_somebodys_own_numbers_stay(caplog: pytest.LogCaptureFixture) -> None:
    bar, shown = TQDMProgressBar(), Bars()
    own = bar.get_metrics = lambda *_: {"mine": 1}  # type: ignore[method-assign]
    fit(Regression(mlp(4, 8, 2)), GradientMonitor(), shown, bar, enable_progress_bar=True)
    assert set(shown.shown[-1]) == {"mine", "grad_norm", "gradients"}
    assert bar.get_metrics is own


def test_a_norm_for_each_optimizer() -> None:
    class Two(Regression):
        def __init__(self) -> None:
            super().__init__(mlp(4, 8, 2))
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))  # type: ignore[arg-type]
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.model[place].parameters(), lr=0.01) for place in (0, 2)]  # type: ignore[index]

    shown = Bars()
    fit(Two(), GradientMonitor(), shown, TQDMProgressBar(), enable_progress_bar=True)
    assert {"grad_norm_0", "grad_norm_1"} <= set(shown.shown[-1])


def test_the_lines_are_seen_without_any_set_up_and_once_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOGGER, "level", logging.NOTSET)
    monkeypatch.setattr(LOGGER, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for handlers in ([], [logging.StreamHandler(sys.stderr)]):
        monkeypatch.setattr(logging.getLogger(), "handlers", handlers)
        fit(Regression(mlp(4, 8, 2)), GradientMonitor())
        said = capsys.readouterr().err
        assert said.count("2 layers watched") == 1
        assert said.count("healthy: no alert") == 1


def test_a_level_that_the_user_has_set_holds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        fit(Regression(mlp(4, 8, 2)), GradientMonitor())
    assert lines(caplog, "GradientMonitor") == []
