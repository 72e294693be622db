"""What the losses of a run say about whether it has come back."""

from __future__ import annotations

import math

import pytest
import torch

from grad_callbacks.reporting.loss_recovery import LossRecovery


def fed(losses: list[float], alert_at: int) -> LossRecovery:
    track = LossRecovery()
    for step, loss in enumerate(losses):
        if step == alert_at:
            track.mark()
        track.feed(torch.tensor(loss))
    return track


@pytest.mark.parametrize("undefined", [math.inf, math.nan])
def test_losses_that_are_undefined_say_nothing_where_others_are_known(undefined: float) -> None:
    falling = [2.0 * 0.98**step if step % 4 == 0 else undefined for step in range(400)]
    track = fed(falling, alert_at=1)
    assert 0 < track.now < 0.01
    assert track.has_returned
    assert track.has_learned
    assert track.is_back(rolled_back=0)


def test_a_run_of_which_no_loss_is_finite_has_not_returned() -> None:
    track = fed([1.0] * 30 + [math.nan] * 30, alert_at=30)
    assert math.isnan(track.now)
    assert not track.has_returned
