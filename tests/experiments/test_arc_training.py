"""Another plugin is trained beside ours where it is installed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.scoreboard.repair.published import PUBLISHED
from tests.support.helpers import SGD, Poisoned, fit, mlp

pytest.importorskip("arc.api.integrations", reason="arc-training is not installed")


def test_it_runs_and_keeps_weights_finite() -> None:
    torch.manual_seed(0)
    module = Poisoned(mlp(4, 8, 2), lambda parameters: SGD(parameters, lr=0.01), factors={15: float("nan")})
    fit(module, PUBLISHED["arc_training"]())
    assert all(parameter.isfinite().all() for parameter in nn.Module.parameters(module))
