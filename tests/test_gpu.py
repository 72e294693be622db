"""What only a CUDA device can show: that the host never waits, and that numbers and remedies are right there."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from experiments.bench.rules import FromTheStart
from grad_callbacks import ClipNorm, Engine, GradientGuard, Prescription, SkipStep
from tests.support.helpers import Poisoned, fit, mlp

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

fused = partial(torch.optim.AdamW, lr=1e-3, fused=True)


@pytest.mark.parametrize(
    ("make", "plan"),
    [
        (torch.optim.AdamW, None),
        (torch.optim.SGD, {"exploding": [ClipNorm(0.1)]}),
        (fused, {"exploding": [ClipNorm(0.1)], "nonfinite": [SkipStep()]}),
        (fused, {"exploding": [{"ClipValue": 0.01}], "nonfinite": [SkipStep()]}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_host_never_waits(make: Any, plan: Any, dtype: torch.dtype) -> None:
    model = mlp(4, 64, 64, 2).to("cuda", dtype)
    engine = Engine(model, make(model.parameters(), lr=1e-3), prescription=Prescription(plan) if plan else None)
    engine.rules.insert(0, FromTheStart())
    inputs = torch.randn(8, 4, device="cuda", dtype=dtype)
    for step in range(30):
        engine.optimizer.zero_grad()
        loss = model(inputs).square().mean() * (math.nan if step == 20 and plan else 1.0)
        loss.backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            engine.before_step(loss=loss)
            engine._after_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        engine.optimizer.step()
    engine.close()
    assert sorted(set(engine.record.history()["step"])) == list(range(30))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("make", [fused, partial(torch.optim.SGD, lr=1e-2)])
def test_norms_agree_with_a_second_pass(precision: Any, make: Any) -> None:
    class Second(GradientGuard):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            scale = scaler.get_scale() if scaler is not None and make is fused else 1.0
            gradients = [p.grad.double() / scale for p in pl_module.parameters()]
            truth[trainer.global_step] = math.sqrt(sum(float(g.square().sum()) for g in gradients))
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    truth: dict[int, float] = {}
    guard = Second()
    fit(Poisoned(mlp(4, 64, 2), make, factors={}), guard, accelerator="gpu", devices=1, precision=precision)
    norms = guard.history().groupby("step")["norm"].agg(lambda norm: float((norm**2).sum() ** 0.5))
    assert {int(step): norm for step, norm in norms.items()} == pytest.approx(truth, rel=1e-5, nan_ok=True)


def test_a_nan_batch_is_an_exact_no_op_on_the_device() -> None:
    model = mlp(4, 64, 2).cuda()
    engine = Engine(model, fused(model.parameters()), prescription=Prescription())
    inputs = torch.randn(8, 4, device="cuda")
    for step in range(6):
        before = [p.detach().clone() for p in model.parameters()]
        engine.optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2]) * (math.nan if step == 5 else 1.0)
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) == (step == 5)
    engine.close()
    assert [made.remedy for made in engine.record.interventions] == ["SkipStep"]
