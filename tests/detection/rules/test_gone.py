"""A gradient that is gone in all layers at once, while much is left to be learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grad_callbacks import Alert, Vanishing
from tests.support.helpers import reading


def alerts_of(
    norm: Callable[[int], float], loss: Callable[[int], float], steps: int = 60, rule: Vanishing | None = None
) -> list[Alert]:
    rule = rule or Vanishing()
    found = []
    for step in range(steps):
        norms = [norm(step)] * 3
        found.append(rule.judge(reading(norms, step, motion=[0.0] * 3, weight_norms=[10.0] * 3, loss=loss(step))))
    return [alert for alert in found if alert is not None]


def stuck(step: int) -> float:
    return 2.3 + 0.01 * (step % 3)


@pytest.mark.parametrize(("norm", "size"), [(0.0, "zero"), (1e-12, "next to nothing (1.7e-12)")])
def test_it_is_seen_once_and_in_all_layers(norm: float, size: str) -> None:
    [alert] = alerts_of(lambda step: 1.0 if step < 10 else norm, stuck)
    assert (alert.kind, alert.step, alert.cause) == ("vanishing", 19, "saturated output")
    assert alert.layers == ("0", "1", "2")
    assert f"the gradient is {size} in all 3 layers, with the loss at 2.3" in alert.message


@settings(deadline=None)
@given(scale=st.floats(1e-6, 1e6))
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    assert len(alerts_of(lambda step: scale * 1e-10, lambda step: scale * stuck(step))) == 1
    assert alerts_of(lambda step: scale * 1e-5, lambda step: scale * stuck(step)) == []


@pytest.mark.parametrize(
    "loss",
    [
        lambda step: 2.0 if step < 10 else 0.0,  # a hinge that is satisfied
        lambda step: 2.0 if step < 10 else 0.1,  # at its floor
        lambda step: float("nan"),  # unknown
    ],
)
def test_a_loss_that_has_come_down_may_have_no_gradient(loss: Callable[[int], float]) -> None:
    assert alerts_of(lambda step: 1.0 if step < 10 else 0.0, loss) == []


def test_it_need_not_hold_in_every_batch() -> None:
    often, seldom = (lambda step: 0.5 * (step % 4 == 0)), (lambda step: 0.5 * (step % 2 == 0))
    assert len(alerts_of(often, stuck)) == 1, "a few batches are no news"
    assert alerts_of(seldom, stuck) == []


def test_it_is_counted_over_a_checkpoint() -> None:
    first, second = Vanishing(), Vanishing()
    assert alerts_of(lambda step: 0.0, stuck, 13, first) == [], "a level of the loss is known from the fifth on"
    state: Mapping[str, object] = first.state_dict()
    second.load_state_dict(state)
    assert len(alerts_of(lambda step: 0.0, stuck, 1, second)) == 1
