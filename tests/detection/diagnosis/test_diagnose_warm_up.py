"""Transformers that lack a warm-up, and those that need none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from grad_callbacks.detection.diagnosis import diagnose
from grad_callbacks.detection.diagnosis.run_context import RunContext
from grad_callbacks.measurement.batch import Batch
from tests.support.diagnosis_cases import (
    Run,
    Transformer,
    classes,
)


def test_a_post_norm_transformer_without_warm_up() -> None:
    model = Transformer()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    run = Run(model, optimizer=adam).train([classes(i, time=8) for i in range(3)]).stop_at(classes(9, time=8))
    for kind in ("vanishing", "exploding"):
        assert diagnose(run.alert(kind), run.case()).cause == "missing warm-up"  # type: ignore[arg-type]
    adam.param_groups[0]["lr"] = 1e-3
    falling = replace(run.case(), first_rates=(1e-2,))
    assert diagnose(run.alert("vanishing"), falling).cause == "missing warm-up"
    rising = replace(run.case(), first_rates=(1e-4,))
    assert diagnose(run.alert("exploding"), rising).cause == "learning rate too high"
    torch.optim.lr_scheduler.LinearLR(adam, start_factor=0.1)
    assert diagnose(run.alert("exploding"), run.case()).cause == "learning rate too high"


@pytest.mark.parametrize(("rates", "lacks_warm_up"), [((1e-4, 1e-2, 1e-6), False), ((1e-2, 1e-4, 1e-6), True)])
def test_a_rate_that_has_come_down_again_was_warmed_up(rates: tuple[float, ...], lacks_warm_up: bool) -> None:
    model = Transformer()
    optimizer = torch.optim.Adam(model.parameters())
    run = Run(model, optimizer=optimizer).stop_at(classes(9, time=8))
    batch = Batch(run.batch, 9, run.case().replay)
    follower, resumed = RunContext(model), RunContext(model)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        follower.note(run.reading, batch, [rate])
    resumed.load_state_dict(follower.state_dict())
    alert = replace(run.alert("vanishing"), cause="saturated activations")
    for each in (follower, resumed):
        found = each.look_into(alert, run.reading, optimizer, [rates[-1]], batch, is_late=False)
        assert (found.cause == "missing warm-up") is lacks_warm_up


def test_a_pre_norm_transformer_needs_none() -> None:
    model = Transformer(norm_first=True)
    run = Run(model, optimizer=torch.optim.Adam(model.parameters(), lr=1.0)).stop_at(classes(time=8))
    assert diagnose(run.alert("exploding"), run.case()).cause == "learning rate too high"
