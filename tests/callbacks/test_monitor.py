"""GradientMonitor on real Trainers."""

from __future__ import annotations

import logging
import math
import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

from grad_callbacks import Alert, GradientMonitor
from tests.support.helpers import Poisoned, Regression, batches, fit, mlp


def test_a_healthy_run_is_called_healthy() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2)), monitor)
    assert (monitor.alerts, monitor.interventions, monitor.verdict, monitor.outcome) == ([], [], "healthy", "healthy")
    assert "healthy" in monitor.report()
    assert "No alert was raised" in monitor.report()


@pytest.mark.parametrize(("factor", "kind"), [(1e4, "exploding"), (math.nan, "nonfinite"), (math.inf, "nonfinite")])
def test_alerts_reach_list_logging_callable_and_report(
    factor: float, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Alert] = []
    monitor = GradientMonitor(on_alert=told.append)
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        fit(Poisoned(mlp(4, 8, 8, 2), factors={15: factor}), monitor)
    assert monitor.alerts[0].kind == monitor.verdict == kind
    assert monitor.alerts[0].step == 15
    assert told == monitor.alerts
    assert f"step 15: {kind} gradients" in caplog.text
    assert monitor.outcome == "unrepaired"
    assert f"step 15: {kind} gradients" in monitor.report()


def test_it_never_changes_training() -> None:
    def weights(*callbacks: Callback) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module = Poisoned(mlp(4, 8, 8, 2), factors={15: 1e4, 20: math.nan})
        fit(module, *callbacks)
        return [p.detach() for p in module.parameters()]

    for a, b in zip(weights(), weights(GradientMonitor()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_it_measures_every_n_steps() -> None:
    monitor = GradientMonitor(every_n_steps=5)
    fit(Regression(mlp(4, 2)), monitor)
    assert monitor.history()["step"].tolist() == [0, 5, 10, 15, 20, 25, 30]


def test_a_short_last_window_is_not_alarming() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2)), monitor, data=batches(33), accumulate_grad_batches=16, max_epochs=8)
    assert monitor.alerts == []
    assert monitor.history()["step"].nunique() == 24


def test_a_second_fit_continues() -> None:
    monitor, module = GradientMonitor(), Regression(mlp(4, 8, 2))
    run = fit(module, monitor)
    run.fit_loop.max_epochs = 2
    run.fit(module, batches())
    assert monitor.history()["step"].unique().tolist() == list(range(64))


def test_another_trainer_is_another_run() -> None:
    monitor = GradientMonitor()
    fit(Poisoned(mlp(4, 8, 2), factors={5: math.nan}), monitor)
    assert monitor.alerts
    fit(Regression(mlp(4, 2)), monitor, max_steps=5)
    assert monitor.alerts == []
    assert monitor.history()["step"].tolist() == [0, 1, 2, 3, 4]


def test_several_monitors_keep_apart(tmp_path: Any) -> None:
    often, seldom = GradientMonitor(), GradientMonitor(every_n_steps=4)
    assert often.state_key != seldom.state_key
    run = fit(Regression(mlp(4, 2)), often, seldom)
    run.save_checkpoint(tmp_path / "both.ckpt")
    assert (len(often.history()), len(seldom.history())) == (32, 8)


def test_after_the_training_the_model_is_let_go() -> None:
    monitor = GradientMonitor()
    net = mlp(4, 5000, 2)
    fit(Regression(net, lambda p: torch.optim.SGD(p, lr=1e-3)), monitor)  # neither small nor picklable
    own = {name: value for name, value in vars(monitor).items() if name not in ("log", "log_dict")}  # Lightning's
    assert len(pickle.dumps(own)) < sum(weight.nbytes for weight in net.parameters()) / 5


@pytest.mark.slow
def test_two_processes_read_the_same(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    module = Poisoned(mlp(4, 8, 2), factors={9: math.nan})
    fit(module, GradientMonitor(), Dump(tmp_path), strategy="ddp_spawn", devices=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["alerts"] == second["alerts"]
    assert [alert["step"] for alert in first["alerts"]] == [9]
    torch.testing.assert_close(first["history"], second["history"], equal_nan=True)
    assert "works in the processes that the strategy spawns" in capfd.readouterr().err


class Dump(Callback):
    """Writes what each process's monitor has found."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        [monitor] = [callback for callback in trainer.callbacks if isinstance(callback, GradientMonitor)]
        state = monitor.state_dict()
        torch.save(
            {"alerts": state["record"]["alerts"], "history": state["record"]["history"]["values"]},
            self.folder / f"rank{trainer.global_rank}.pt",
        )


@pytest.mark.parametrize("seed", range(3))
def test_long_first_steps_of_a_noisy_linear_model_are_no_explosion(seed: int) -> None:
    torch.manual_seed(seed)
    monitor = GradientMonitor()
    fit(BoringModel(), monitor, data=DataLoader(RandomDataset(32, 64)), max_steps=12)
    assert monitor.alerts == []
