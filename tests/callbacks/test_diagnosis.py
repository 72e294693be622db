"""The diagnosis of alerts on real Trainers: right, and without a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import Alert, GradientGuard, GradientMonitor, Reading, Rule
from tests.support.helpers import SGD, Regression, batches, fit, mlp, trainer


class Busy(Regression):
    """Counts, logs, draws random numbers and keeps a total: all that a second run of its step could disturb."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 2))
        )
        self.calls = 0
        self.losses: list[float] = []
        self.total = torch.zeros(())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.calls += 1
        loss = super().training_step(batch, batch_idx)
        assert loss is not None
        loss = loss * (300.0 if batch_idx in (15, 20) else 1.0)
        self.losses.append(float(loss.detach()))
        self.total += loss.detach()
        self.log("train/loss", loss)
        return loss


def trained(tmp_path: Any, *callbacks: Any) -> tuple[Busy, list[str]]:
    """A trained module, and what its logger has written."""
    torch.manual_seed(0)
    module = Busy()
    logger = CSVLogger(str(tmp_path), name="", version=str(len(list(tmp_path.iterdir()))))
    run = trainer(*callbacks, logger=logger, max_epochs=2, log_every_n_steps=1)
    run.fit(module, batches())
    rows = (tmp_path / str(logger.version) / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss")
    return module, [row.split(",")[column] for row in rows[1:] if row.split(",")[column]]


def test_a_diagnosis_leaves_no_trace(tmp_path: Any) -> None:
    bare, logged = trained(tmp_path)
    monitor = GradientMonitor()
    watched, logged_too = trained(tmp_path, monitor)
    assert len(monitor.alerts) >= 2
    assert {"loss_before_step", "previous_batch_loss_now"} & set(monitor.alerts[0].evidence), (
        "it has run the step again"
    )
    told = [(m.state_dict(), torch.tensor(m.losses), m.total, m.calls) for m in (bare, watched)]
    torch.testing.assert_close(told[1], told[0], rtol=0, atol=0, equal_nan=True)
    assert logged_too == logged


def test_without_it_the_step_is_never_run_again() -> None:
    class Unrepeatable(Busy):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            assert self.global_step >= len(self.losses), "run again"
            return super().training_step(batch, batch_idx)

    monitor = GradientMonitor(diagnose=False)
    fit(Unrepeatable(), monitor)
    assert monitor.alerts


class Logarithm(Regression):
    """Takes the logarithm of what a ReLU leaves of its outputs, from a step on."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        outputs = self.model(batch[0])
        if self.global_step < 20:
            return nn.functional.mse_loss(outputs, batch[1])
        return -(outputs.clamp(min=0.0) * 0.0).log().mean()


def poisoned(at: int, change: Callable[[Tensor], Tensor]) -> DataLoader[Any]:
    """The usual batches, one of them changed."""
    inputs, targets = batches().dataset.tensors  # type: ignore[attr-defined]
    inputs = inputs.clone()
    inputs[8 * at : 8 * (at + 1)] = change(inputs[8 * at : 8 * (at + 1)])
    return DataLoader(TensorDataset(inputs, targets), batch_size=8)


def test_a_bad_batch_is_named_by_its_index() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2)), monitor, data=poisoned(17, lambda x: x * torch.nan))
    alert = monitor.alerts[0]
    assert (alert.kind, alert.step, alert.cause, alert.evidence["batch_index"]) == ("nonfinite", 17, "bad batch", 17)


def test_an_outlying_batch_is_named_by_its_index() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2)), monitor, data=poisoned(17, lambda x: 300 * x))
    alert = monitor.alerts[0]
    assert (alert.kind, alert.step, alert.cause, alert.evidence["batch_index"]) == ("exploding", 17, "bad batch", 17)


def test_an_undefined_operation_is_named() -> None:
    monitor = GradientMonitor()
    fit(Logarithm(mlp(4, 8, 2)), monitor)
    alert = monitor.alerts[0]
    assert (alert.kind, alert.step, alert.cause) == ("nonfinite", 20, "undefined operation")
    assert "log" in alert.message.lower()


class CutOff(Regression):
    """Adds the logarithm of a number that becomes negative; no gradient passes through it."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        assert loss is not None
        return loss + torch.tensor(10.5 - batch_idx).log()


def test_a_loss_that_stays_nan_over_finite_gradients_is_named() -> None:
    monitor = GradientMonitor()
    fit(CutOff(mlp(4, 8, 2)), monitor)
    [alert] = monitor.alerts
    assert (alert.kind, alert.step, alert.cause) == ("nonfinite", 20, "undefined operation")
    assert "log" in alert.message.lower()


def test_a_saturated_network_is_told_the_lines_to_change() -> None:
    torch.manual_seed(0)
    monitor = GradientMonitor()
    fit(Regression(mlp(4, *[16] * 9, 2, activation=nn.Sigmoid)), monitor)
    [alert] = monitor.alerts
    assert (alert.kind, alert.cause) == ("vanishing", "saturated activations")
    assert "nn.ReLU()" in alert.advice


class Manual(Regression):
    """Optimizes by hand."""

    automatic_optimization = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        loss = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


def test_manual_optimization_is_diagnosed_too() -> None:
    torch.manual_seed(0)
    monitor = GradientMonitor()
    module = Manual(mlp(4, *[16] * 9, 2, activation=nn.Sigmoid))
    fit(module, monitor)
    assert [alert.cause for alert in monitor.alerts] == ["saturated activations"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules()), "no hook stays"


class Forecast(LightningModule):
    """Recurrent cells that foretell the next value of a wave, by squared error or as a normal distribution."""

    def __init__(self, cells: type[nn.RNNBase], is_probabilistic: bool, rate: float) -> None:
        super().__init__()
        self.cells, self.head = cells(1, 25, num_layers=1 + is_probabilistic, batch_first=True), nn.Linear(25, 2)
        self.rate = rate
        self.is_probabilistic = is_probabilistic

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        waves = torch.sin(torch.arange(48.0)[:, None] / 6 + batch[0][:, :1, None])
        mean, spread = self.head(self.cells(waves[:, :-1])[0]).split(1, dim=-1)
        if not self.is_probabilistic:
            return nn.functional.mse_loss(mean, waves[:, 1:])
        told = torch.distributions.Normal(mean, nn.functional.softplus(spread) + 1e-3)
        return -told.log_prob(waves[:, 1:]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.rate)


@pytest.mark.numerics
@pytest.mark.parametrize(("cells", "is_probabilistic"), [(nn.LSTM, False), (nn.GRU, False), (nn.LSTM, True)])
def test_a_rate_a_thousand_times_too_high_is_told_as_such_in_gated_cells(
    cells: type[nn.RNNBase], is_probabilistic: bool
) -> None:
    torch.manual_seed(0)
    monitor = GradientMonitor()
    fit(Forecast(cells, is_probabilistic, rate=1.0), monitor)
    assert monitor.alerts
    assert {alert.cause for alert in monitor.alerts} == {"learning rate too high"}


class Rooted(Manual):
    """A penalty with a root, as that of WGAN-GP, whose argument becomes zero for one example."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        squares = self.model(batch[0]).square().sum(1)
        is_flat = (torch.arange(len(squares)) == 0) & (batch_idx >= 10)
        penalty = ((squares * ~is_flat).sqrt() - 1).square().mean()
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(penalty)
        optimizer.step()


@pytest.mark.parametrize("callback", [GradientMonitor, GradientGuard])
def test_in_manual_optimization_an_undefined_derivative_is_named_with_its_line(callback: type[GradientMonitor]) -> None:
    monitor = callback()
    module = Rooted(mlp(4, 8, 2), lambda parameters: SGD(parameters, lr=1e-3))
    fit(module, monitor)
    alert = monitor.alerts[0]
    assert (alert.kind, alert.step, alert.cause) == ("nonfinite", 10, "undefined operation")
    assert "`SqrtBackward0` at test_diagnosis.py:" in alert.message
    assert "torch.sqrt(x + 1e-8)" in alert.advice
    if callback is GradientGuard:
        assert [entry.remedy for entry in monitor.interventions] == ["MaskUndefined"]
        assert all(parameter.isfinite().all() for parameter in module.parameters())


class Own(Rule):
    """A rule with a cause of its own."""

    kind: str = "exploding"
    active = False

    def judge(self, reading: Reading) -> Alert | None:
        if reading.step != 5:
            return None
        return Alert("exploding", "warning", 5, (), "the moon is full", {}, "the moon", "wait")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


@pytest.mark.parametrize("callback", [GradientMonitor, GradientGuard])
def test_a_rule_of_ones_own_keeps_its_cause(callback: type[GradientMonitor]) -> None:
    monitor = callback(rules=[Own()])
    module: LightningModule = Regression(mlp(4, 8, 2), lambda p: SGD(p, lr=0.01))
    fit(module, monitor)
    assert [(alert.cause, alert.message) for alert in monitor.alerts] == [("the moon", "the moon is full")]
