"""Advice fits the model and its training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from grad_callbacks import Alert, Evidence
from grad_callbacks.detection.diagnosis import Case, advice
from grad_callbacks.detection.diagnosis.probes import Probes
from tests.support.helpers import mlp


class Attentive(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))  # type: ignore[no-any-return]


def probes(model: nn.Module, lr: float = 1.0, rates: tuple[float, ...] | None = None, **options: Any) -> Probes:
    make: Callable[..., torch.optim.Optimizer] = options.pop("make", torch.optim.AdamW)
    optimizer = make(model.parameters(), lr=lr)
    optimizer.param_groups[0].update(options.pop("group", {}))
    inputs = torch.randn(4, 5, 8) if isinstance(model, Attentive) else torch.randn(4, 8)
    layers = options.pop("layers", ())
    alert = Alert("exploding", "critical", 500, layers, "", Evidence({}), "", "")
    case = Case(model, optimizer=optimizer, rates=rates, replay=lambda: model(inputs).square().mean(), **options)
    return Probes(alert, case)


@pytest.mark.parametrize(("norm", "told"), [(False, "layer normalisation before each block"), (True, "QK-norm")])
def test_a_transformer_gets_no_batch_normalisation(norm: bool, told: str) -> None:
    assert told in advice.normalise(probes(Attentive(norm)))


def test_a_head_gets_no_normalisation_behind_it() -> None:
    model = mlp(8, 8, 8, 2)
    assert advice.normalise(probes(model, layers=("4",))) == ""
    assert "`nn.BatchNorm1d(8)` after 0" in advice.normalise(probes(model, layers=("0", "4")))


def test_a_net_that_has_normalisations_gets_no_more() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    assert advice.normalise(probes(model, layers=("0",))) == ""


def test_of_a_schedule_the_peak_is_lowered() -> None:
    scheduled = {"group": {"initial_lr": 1.5}}
    assert advice.lower_rate(probes(mlp(8, 8, 2), 1.5, (1.0,), **scheduled)) == (
        "smaller peak of the schedule: lr=1.5 -> 0.15 in AdamW"
    )
    one_cycle = {"group": {"initial_lr": 0.04, "max_lr": 1.0}}
    assert "lr=1 -> 0.1" in advice.lower_rate(probes(mlp(8, 8, 2), 0.5, (0.5,), **one_cycle))
    assert advice.lower_rate(probes(mlp(8, 8, 2), 0.5)) == "smaller learning rate: lr=0.5 -> 0.05 in AdamW"


def test_a_rate_that_was_raised_is_told_what_it_was() -> None:
    raised = probes(mlp(8, 8, 2), 30.0, (30.0,), first_rates=(1.0,), group={"initial_lr": 1.0})
    assert advice.lower_rate(raised) == "the learning rate as it was given: lr=30 in this step, lr=1 in AdamW"


def test_where_there_is_a_warm_up_it_should_be_longer() -> None:
    warmed = probes(mlp(8, 8, 2), 1.0, (1.0,), first_rates=(0.01,), highest_rates=(1.0,))
    assert advice.warm_up(warmed) == "a longer warm-up"
    assert advice.warm_up(probes(mlp(8, 8, 2), 1.0, first_rates=(1.0,))).startswith("warm-up: `torch.optim")


def test_a_shorter_memory_is_for_transformers_under_adam() -> None:
    assert "betas=(0.9, 0.95)" in advice.shorter_memory(probes(Attentive(True)))
    assert advice.shorter_memory(probes(mlp(8, 8, 2))) == ""
    assert advice.shorter_memory(probes(Attentive(True), make=torch.optim.SGD)) == ""
