"""The engine in a Fabric loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import nn

from grad_callbacks import Engine, Prescription
from tests.support.helpers import SGD, batches, mlp


def plugins(precision: str) -> dict[str, Any]:
    if precision == "16-mixed":
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    return {"precision": precision}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_fabric_loop(precision: str, fused: bool) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, **plugins(precision))
    torch.manual_seed(0)
    plain = mlp(4, 8, 2)
    model, optimizer = fabric.setup(plain, SGD(plain.parameters(), lr=0.01, fused=fused))
    engine = Engine(model, optimizer, prescription=Prescription())
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    for inputs, targets in batches():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        fabric.backward(loss)
        outlook = engine.before_step(loss=loss, scaler=scaler)
        optimizer.step()
        assert outlook is not None
    engine.close()
    history = engine.record.history()
    assert list(history["layer"].unique()) == ["0", "2"]
    assert history["step"].nunique() == 32
    assert history["norm"].max() < 100, "the loss scale of 1024 is divided out"
    assert engine.record.verdict == "healthy"
