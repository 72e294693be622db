"""What a monitor reads of a step is what the optimizer was given, whatever the optimizer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.demos.boring_classes import ManualOptimBoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientMonitor
from tests.support.helpers import SGD, Regression, batches, fit, mlp, trainer
from tests.support.true_norms import Spy, global_norms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 3},
        {"max_epochs": 2, "accumulate_grad_batches": 5},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"gradient_clip_val": 0.1},
    ],
    ids=str,
)
def test_history_holds_the_true_norms_of_every_step(options: dict[str, Any]) -> None:
    monitor, spy = GradientMonitor(), Spy()
    fit(Regression(mlp(4, 8, 8, 2)), spy, monitor, **options)
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    frame = monitor.history()
    assert frame["layer"].unique().tolist() == ["model.0", "model.2", "model.4"]
    assert frame["depth"].unique().tolist() == [0, 1, 2]
    assert frame["weight_norm"].notna().all()
    assert frame.loc[frame["step"] < 20, "update_ratio"].gt(0).all()


class Two(LightningModule):
    """Two optimizers that take turns, in manual optimization; the second starts from the first one's gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.one, self.two = mlp(4, 4, 2), mlp(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        for optimizer, factor in zip(self.optimizers(), (1.0, 2.0), strict=True):
            loss = factor * nn.functional.mse_loss(self.one(inputs) + self.two(inputs), targets)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(m.parameters(), lr=0.01) for m in (self.one, self.two)]


def test_each_optimizer_is_read_by_itself(tmp_path: Any) -> None:
    monitor, spy = GradientMonitor(), Spy()
    run = fit(Two(), spy, monitor, logger=CSVLogger(tmp_path, name=None, version=""), log_every_n_steps=4)
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    frame = monitor.history()
    assert frame.loc[frame["step"] % 2 == 0, "layer"].unique().tolist() == ["one.0", "one.2"]
    assert frame.loc[frame["step"] % 2 == 1, "layer"].unique().tolist() == ["two.0"]
    assert {"grad/norm_0", "grad/norm_1"} <= set((tmp_path / "metrics.csv").read_text().splitlines()[0].split(","))
    assert run.global_step == 64


def test_manual_optimization_of_lightnings_own_demo() -> None:
    monitor, spy = GradientMonitor(), Spy()
    run = trainer(spy, monitor, limit_train_batches=8, limit_val_batches=0)
    run.fit(ManualOptimBoringModel())
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_scaler_at_work_is_no_explosion(fused: bool) -> None:
    def run(**options: Any) -> GradientMonitor:
        torch.manual_seed(0)
        monitor = GradientMonitor()
        make = partial(torch.optim.Adam, lr=0.0, fused=fused)  # the weights stay, so that steps can be compared
        fit(Regression(mlp(4, 8, 2), make), monitor, **options)
        return monitor

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)
    scaled = run(plugins=[MixedPrecision("16-mixed", device="cpu", scaler=scaler)])
    norms, expected = global_norms(scaled), global_norms(run())
    finite = {step: norm for step, norm in norms.items() if math.isfinite(norm)}
    assert 5 < len(finite) < len(norms), "some steps overflow, and only these are not finite"
    assert finite == pytest.approx({step: expected[step] for step in finite}, rel=0.02), "the scale is divided out"
    assert scaled.alerts == []


def test_a_line_search_is_one_reading_a_step() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 2), lambda p: torch.optim.LBFGS(p, max_iter=5)), monitor, max_steps=4)
    assert monitor.history()["step"].tolist() == [0, 1, 2, 3]
    assert "dtype" not in monitor.report()


def test_update_ratios_are_those_of_the_step() -> None:
    class Ratios(Callback):
        def __init__(self) -> None:
            self.ratios: list[float] = []

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.before = nn.utils.parameters_to_vector(pl_module.parameters()).clone()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            after = nn.utils.parameters_to_vector(pl_module.parameters())
            self.ratios.append(float((after - self.before).norm() / self.before.norm()))

    monitor, truth = GradientMonitor(), Ratios()
    fit(Regression(mlp(4, 2), lambda p: torch.optim.AdamW(p, lr=0.01)), truth, monitor, data=batches(15))
    np.testing.assert_allclose(monitor.history()["update_ratio"], truth.ratios, rtol=1e-3)


def test_sparse_gradients_with_a_row_twice_are_left_as_they_are() -> None:
    def trained(*callbacks: Any) -> Tensor:
        torch.manual_seed(0)
        embedding = nn.EmbeddingBag(5, 4, sparse=True)
        module = Regression(nn.Sequential(embedding, nn.Linear(4, 2)), partial(SGD, lr=0.1))
        rows = torch.randint(0, 5, (64, 6))
        fit(module, *callbacks, data=DataLoader(TensorDataset(rows, torch.randn(64, 2)), batch_size=8))
        return embedding.weight.detach()

    assert torch.equal(trained(), trained(GradientMonitor()))
