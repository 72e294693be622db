"""Networks whose numbers do not fit into 16 bits."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from grad_callbacks import FullPrecision, GradientGuard
from tests.support.helpers import Regression, batches, fit, hooks, mlp, trainer

PLAN = {"nonfinite": ["FullPrecision"]}


def half(**options: Any) -> dict[str, Any]:
    """Options of a Trainer that computes in 16 bits on the CPU."""
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=65536.0))], **options}


class Wide(Regression):
    """Its first layer's outputs outgrow float16 from step ``since`` on; another brings them back."""

    def __init__(self, since: int = 20, is_finite: bool = True, sizes: Sequence[int] = (4, 16, 16, 2)) -> None:
        torch.manual_seed(0)
        super().__init__(mlp(*sizes), lambda p: torch.optim.Adam(p, lr=0.01))
        self.since, self.is_finite = since, is_finite
        self.losses: list[float] = []
        self.model[0].register_forward_hook(self.grow)
        self.model[1 if len(sizes) < 9 else -1].register_forward_hook(self.shrink)

    def grow(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * (1e6 if self.global_step >= self.since else 1.0)

    def shrink(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output / (1e6 if self.global_step >= self.since else 1.0)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(self.global_step))
        if not self.is_finite and self.global_step >= self.since:
            inputs = inputs / 0
        loss = nn.functional.mse_loss(self.model(inputs), inputs[:, :2])
        self.losses.append(float(loss.detach()))
        return loss


@pytest.mark.numerics
@pytest.mark.parametrize("plan", [PLAN, "full"])
def test_it_goes_on_learning_in_float32(plan: Any) -> None:
    module, guard = Wide(), GradientGuard(plan)
    before = hooks(module)
    options = half()
    fit(module, guard, data=batches(120), **options)
    [made] = guard.interventions
    assert (made.step, made.remedy, made.detail["modules"]) == (35, "FullPrecision", "model.0")
    assert made.detail["steps"] == 85
    assert sum(module.losses[-10:]) < 0.3 * sum(module.losses[10:20])
    assert guard.outcome == "repaired"
    assert hooks(module) == before, "the hooks are gone"
    assert options["plugins"][0].scaler.get_scale() >= 2**14, "the overflows have halved it 16 times"


@pytest.mark.numerics
def test_weights_that_are_worth_keeping_are_kept_from_the_first_step_on() -> None:
    module = Wide(since=0)
    module.model[4].bias.requires_grad_(False)  # nobody freezes fresh weights
    guard = GradientGuard()
    fit(module, guard, data=batches(120), **half())
    assert [(made.step, made.remedy) for made in guard.interventions] == [(0, "FullPrecision")]
    assert sum(module.losses[-10:]) < 0.5 * sum(module.losses[1:11])


def test_where_many_modules_overflow_the_whole_model_is_widened() -> None:
    module, guard = Wide(sizes=(4, *[8] * 11, 2)), GradientGuard(PLAN)
    fit(module, guard, data=batches(60), **half())
    assert [made.detail["modules"] for made in guard.interventions] == ["the whole model"]
    assert all(math.isfinite(loss) for loss in module.losses[36:])


def test_nothing_is_widened_where_16_bits_are_not_to_blame() -> None:
    module, guard = Wide(is_finite=False), GradientGuard(PLAN)
    fit(module, guard, data=batches(60), **half())
    assert guard.alerts
    assert guard.interventions == []


def test_a_healthy_run_is_left_alone_to_the_bit() -> None:
    guarded, plain = Wide(since=1000), Wide(since=1000)
    guard = GradientGuard()
    fit(guarded, guard, data=batches(60), **half())
    fit(plain, data=batches(60), **half())
    assert guard.interventions == []
    assert all(torch.equal(a, b) for a, b in zip(guarded.parameters(), plain.parameters(), strict=True))


def test_resumed_it_goes_on_in_float32(tmp_path: Path) -> None:
    whole, untouched = GradientGuard(), Wide()
    fit(untouched, whole, data=batches(80), **half())
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=50)
    fit(Wide(), GradientGuard(), saver, data=batches(80), **half(enable_checkpointing=True, max_steps=50))
    [checkpoint] = tmp_path.glob("*.ckpt")
    resumed, continued = GradientGuard(), Wide()
    trainer(resumed, **half()).fit(continued, batches(80), ckpt_path=checkpoint, weights_only=True)
    assert resumed.interventions == whole.interventions
    for a, b in zip(continued.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_autocast_is_as_before_after_an_error() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert not torch.is_autocast_enabled("cpu")
            raise RuntimeError("no")

    model, remedy = nn.Sequential(Failing()), FullPrecision()
    remedy.modules = ["0"]
    remedy.attach(model)
    with torch.autocast("cpu", dtype=torch.float16):
        with pytest.raises(RuntimeError, match="no"):
            model(torch.ones(1))
        assert torch.is_autocast_enabled("cpu")
    assert copy.deepcopy(remedy)._handles == []
    remedy.detach()
    assert hooks(model) == 0


class Raw(Regression):
    """Inputs in a unit far too large for 16 bits, from the first step on."""

    def __init__(self, factor: float) -> None:
        torch.manual_seed(0)
        super().__init__(mlp(4, 16, 16, 2), lambda p: torch.optim.Adam(p, lr=0.01))
        self.factor = factor
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(self.global_step))
        batch[0].set_(inputs * self.factor)
        loss = nn.functional.mse_loss(self.model(batch[0]), inputs[:, :2])
        self.losses.append(float(loss.detach()))
        return loss


@pytest.mark.numerics
def test_inputs_that_overflow_at_the_first_step_are_brought_to_unit_size() -> None:
    module, plain, guard = Raw(1e6), Raw(1.0), GradientGuard()
    fit(module, guard, data=batches(120), **half())
    fit(plain, data=batches(120), **half())
    [made] = guard.interventions
    assert (made.step, made.remedy, made.detail["usual_size"]) == (0, "RescaleInputs", 1.0)
    assert made.detail["divisor"] == pytest.approx(1e6, rel=0.5)
    assert sum(module.losses[-10:]) < 2 * sum(plain.losses[-10:])
