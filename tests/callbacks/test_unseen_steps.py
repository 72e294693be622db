"""Trainings in which the callback is not shown a step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from grad_callbacks import GradientMonitor
from tests.support.helpers import Regression, batches, fit, mlp


class OwnOptimizer(Regression):
    """Steps an optimizer that Lightning does not know."""

    def __init__(self) -> None:
        super().__init__(mlp(4, 8, 2))
        self.automatic_optimization = False
        self.own = torch.optim.SGD(self.model.parameters(), lr=0.01)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        self.own.zero_grad()
        super().training_step(batch, batch_idx).backward()
        self.own.step()


@pytest.mark.parametrize(("steps", "warnings"), [(60, 1), (30, 0)])
def test_it_says_once_that_it_sees_nothing(steps: int, warnings: int, recwarn: pytest.WarningsRecorder) -> None:
    monitor = GradientMonitor()
    fit(OwnOptimizer(), monitor, data=batches(steps))
    told = [str(warning.message) for warning in recwarn if "no optimizer step was seen" in str(warning.message)]
    assert len(told) == warnings
    assert monitor.verdict == monitor.outcome == "not measured"
    assert "self.optimizers()" in monitor.report()


def test_a_callback_whose_copy_was_used_says_not_measured() -> None:
    monitor = GradientMonitor()
    assert monitor.verdict == "not measured"
    used = copy.deepcopy(monitor)
    fit(Regression(mlp(4, 8, 2)), used)
    assert (monitor.verdict, used.verdict) == ("not measured", "healthy")
