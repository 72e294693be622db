"""Which layers and parameters a monitor finds in a model, and what it says where there are none."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from grad_callbacks import GradientMonitor
from tests.support.helpers import Regression, batches, fit, mlp
from tests.support.true_norms import Spy, global_norms


class Reversed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Linear(3, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.late(self.early(x))


def test_layers_are_in_forward_order_and_no_hook_is_left() -> None:
    monitor, module = GradientMonitor(), Regression(Reversed())
    fit(module, monitor)
    assert monitor.history()["layer"].unique().tolist() == ["model.early", "model.late"]
    assert not any(m._forward_pre_hooks for m in module.modules())


def test_a_compiled_module_keeps_names_and_order_and_is_compiled_once() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monitor = GradientMonitor()
    fit(torch.compile(Regression(Reversed()), backend="aot_eager"), monitor)  # type: ignore[arg-type]
    assert monitor.history()["layer"].unique().tolist() == ["model.early", "model.late"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("wrap", [torch.compile, nn.Sequential])
def test_layers_that_no_hook_sees_are_measured_all_the_same(wrap: Any) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.layer.weight, self.layer.bias)

    monitor, spy = GradientMonitor(), Spy()
    torch._dynamo.config.disable = True  # the wrapping is what matters here, not the compiler
    try:
        fit(Regression(wrap(Functional())), spy, monitor)
    finally:
        torch._dynamo.config.disable = False
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    assert monitor.history()["update_ratio"].notna().sum() == 21, "the first 20 steps, and every 25th"
    assert monitor.history()["layer"].unique().tolist() in (["model.layer"], ["model.0.layer"])


def test_parameters_unfrozen_in_mid_run_are_read() -> None:
    class Unfreeze(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 10:
                pl_module.model[0].requires_grad_(True)
            if batch_idx == 20:
                extra = nn.Linear(4, 2)
                pl_module.model.add_module("extra", extra)
                trainer.optimizers[0].add_param_group({"params": extra.parameters()})

    module, monitor, spy = Regression(mlp(4, 8, 2)), GradientMonitor(), Spy()
    module.model[0].requires_grad_(False)
    fit(module, Unfreeze(), spy, monitor, data=batches(targets=2, features=4, count=20))
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    assert len(monitor.history().query("step == 0")) == 1
    assert len(monitor.history().query("step == 15")) == 2


def test_all_gradients_none_is_one_warning() -> None:
    class Nothing(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

    monitor = GradientMonitor()
    with pytest.warns(UserWarning, match="no parameter of optimizer 0 had a gradient at step 0") as caught:
        fit(Nothing(mlp(4, 2)), monitor)
    assert len([w for w in caught if "no parameter of optimizer" in str(w.message)]) == 1
    assert monitor.history().empty
    assert monitor.report()


def test_batches_that_the_user_skips_are_no_warning() -> None:
    class Skips(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
            return None if batch_idx % 3 == 1 else super().training_step(batch, batch_idx)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no parameter of optimizer.*")
        fit(Skips(mlp(4, 2)), GradientMonitor())


def test_a_model_without_parameters_is_one_warning() -> None:
    class Empty(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

        def configure_optimizers(self) -> None:
            return None

    with pytest.warns(UserWarning, match="the model has no trainable parameters"):
        fit(Empty(), GradientMonitor())
