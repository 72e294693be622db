"""SGD that takes the steps of Adam."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grad_callbacks import AdaptiveStep, Alert, OptimizerStep
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.step import RunState
from tests.support.helpers import SGD, mlp, pending

CRITICAL = Alert("exploding", "critical", 0, (), "", {}, "learning rate too high", "")


def small(scale: float = 1.0, seed: int = 0) -> nn.Sequential:
    """A model in float64, whose gradients are multiplied with ``scale``."""
    torch.manual_seed(0)
    model = mlp(4, 8, 2).double()
    push(model, scale, seed)
    return model


def push(model: nn.Module, scale: float = 1.0, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 4, generator=generator).double()
    model.zero_grad()
    nn.functional.mse_loss(model(inputs), inputs[:, :2]).mul(scale).backward()


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **told: Any) -> OptimizerStep:
    step = pending(model, optimizer, **told)
    step.run_state = RunState(model, alert=CRITICAL)
    return step


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def switched_on(step: OptimizerStep, stride: float = 0.03) -> AdaptiveStep:
    remedy = AdaptiveStep(stride)
    assert remedy.engage(step, Evidence({})) == {"stride": stride}
    return remedy


def test_its_steps_are_those_of_adam() -> None:
    model = small()
    twin, optimizer = copy.deepcopy(model), SGD(model.parameters(), lr=0.1)
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    usual = math.sqrt((8 + 2) / 3)  # what a default initialisation would give them, if that is more
    rate = 0.01 * max(float(weights.norm()), usual) / math.sqrt(weights.numel())
    adam, remedy = torch.optim.Adam(twin.parameters(), lr=rate, eps=0), AdaptiveStep(0.01)
    for number in range(30):
        push(model, seed=number)
        push(twin, seed=number)
        step = step_of(model, optimizer)
        if number == 0:
            remedy.engage(step, Evidence({}))
        assert remedy.act(step)
        optimizer.step()
        adam.step()
    for mine, its in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(power=st.integers(-60, 60), momentum=st.sampled_from([0.0, 0.9]))
def test_the_size_of_the_gradient_does_not_matter(power: int, momentum: float) -> None:
    found = []
    for scale in (1.0, 10.0**power):
        model = small(scale)
        remedy = switched_on(step_of(model))
        optimizer = SGD(model.parameters(), lr=0.1, momentum=momentum)
        for number in range(3):
            push(model, scale, number)
            remedy.act(step_of(model, optimizer))
        found.append(gradients(model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(stride=st.floats(1e-4, 0.5), power=st.integers(-30, 30), momentum=st.sampled_from([0.0, 0.5, 0.9]))
def test_no_step_moves_the_weights_farther_than_the_stride(stride: float, power: int, momentum: float) -> None:
    model = small(10.0**power)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=momentum)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    step = step_of(model, optimizer)
    assert switched_on(step, stride).act(step)
    optimizer.step()
    moved = (nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm()
    assert float(moved) / (1 - momentum) <= stride * max(float(before.norm()), math.sqrt(10 / 3)) * 1.001


def test_a_lower_rate_shortens_the_steps_and_a_higher_one_does_not_lengthen_them() -> None:
    model = small()
    step = step_of(model)
    remedy = switched_on(step)
    remedy.act(step)
    lengths = {}
    for rate in (0.1, 0.01, 10.0):
        again = copy.deepcopy(remedy)
        push(model, seed=1)
        lowered = step_of(model, SGD(model.parameters(), lr=rate))
        again.act(lowered)
        lengths[rate] = rate * lowered.norm
    assert lengths[0.01] == pytest.approx(lengths[0.1] / 10)
    assert lengths[10.0] == pytest.approx(lengths[0.1])


def test_the_device_comes_to_the_same_gradients_and_tells_their_norm() -> None:
    found = []
    for on_device in (False, True):
        model = small()
        step = step_of(model, on_device=on_device)
        switched_on(step).act(step)
        step.commit()
        assert step.norm == pytest.approx(float(gradients(model).norm()))
        found.append(gradients(model))
    assert torch.equal(*found)


def test_what_a_loss_scaler_will_divide_by_is_multiplied_again() -> None:
    plain, scaled = small(), small(1024.0)
    for model, options in ((plain, {}), (scaled, {"loss_scale": 1024.0})):
        step = step_of(model, **options)
        switched_on(step).act(step)
    torch.testing.assert_close(gradients(plain) * 1024, gradients(scaled))


@pytest.mark.parametrize("on_device", [False, True])
def test_a_gradient_that_is_not_finite_leaves_no_trace(on_device: bool) -> None:
    model = small()
    step = step_of(model)
    remedy = switched_on(step)
    remedy.act(step)
    before = copy.deepcopy(remedy.state_dict())
    push(model, math.nan)
    assert not torch.isfinite(gradients(model)).any()
    remedy.act(step_of(model, on_device=on_device))
    assert not torch.isfinite(gradients(model)).any(), "others must see it"
    after = remedy.state_dict()
    assert after["count"] == before["count"] == 1
    for name in ("first", "second"):
        assert all(torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))


def test_a_first_gradient_without_size_only_postpones_it() -> None:
    model = small(0.0)
    remedy = switched_on(step_of(model))
    assert not remedy.act(step_of(model))
    push(model)
    assert remedy.act(step_of(model))


def test_it_goes_on_from_a_checkpoint() -> None:
    model = small()
    step = step_of(model)
    remedy, resumed = switched_on(step), AdaptiveStep()
    remedy.act(step)
    resumed.load_state_dict(copy.deepcopy(remedy.state_dict()))
    found = []
    for each in (remedy, resumed):
        push(model, seed=1)
        each.act(step_of(model))
        found.append(gradients(model))
    assert torch.equal(*found)


def test_the_momentum_of_gradients_of_another_size_is_forgotten() -> None:
    model = small(1e6)
    optimizer = SGD(model.parameters(), lr=1e-9, momentum=0.9)
    optimizer.step()
    push(model)
    step = step_of(model, optimizer)
    switched_on(step).act(step)
    assert all(not state["momentum_buffer"].any() for state in optimizer.state.values())


def test_switched_on_again_only_its_moments_begin_anew() -> None:
    model = small()
    step = step_of(model)
    remedy = switched_on(step)
    remedy.act(step)
    assert remedy.engage(step_of(model), Evidence({})) is None
    assert remedy.state_dict()["count"] is None
    assert remedy.act(step_of(model))


def test_it_can_be_withdrawn_and_comes_too_late_for_a_step_that_was_taken() -> None:
    model = small()
    step = step_of(model)
    remedy, before = switched_on(step), gradients(model)
    step.after()
    assert not remedy.act(step)
    assert not step.replace([None] * 4)
    assert torch.equal(gradients(model), before)
    assert remedy.release(step)
    assert not remedy.release(step)
    assert not remedy.act(step_of(model))


def _sparse() -> nn.Module:
    model = nn.Embedding(5, 3, sparse=True)
    model(torch.tensor([0, 1])).square().mean().backward()
    return model


def _recurrence() -> nn.Module:
    model = nn.RNN(2, 3)
    model(torch.randn(5, 4, 2))[0].square().mean().backward()
    return model


@pytest.mark.parametrize("make", [_sparse, _recurrence])
def test_where_it_cannot_help_it_is_not_switched_on(make: Any) -> None:
    assert AdaptiveStep().engage(step_of(make()), Evidence({})) is None


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.AdamW])
def test_optimizers_that_rescale_are_left_alone(make: Any) -> None:
    model = small()
    assert AdaptiveStep().engage(step_of(model, make(model.parameters(), lr=0.1)), Evidence({})) is None


@pytest.mark.parametrize("cause", ["bad batch", ""])
def test_what_passes_and_what_has_been_learned_change_nothing(cause: str) -> None:
    step = step_of(small())
    assert step.run_state is not None
    step.run_state.alert = replace(CRITICAL, cause=cause)
    assert AdaptiveStep().engage(step, Evidence({})) is None
    step.run_state = RunState(small(), alert=CRITICAL, has_learned=True)
    assert AdaptiveStep().engage(step, Evidence({})) is None


@pytest.mark.parametrize("stride", [0, -1.0, math.nan])
def test_a_wrong_argument_is_named(stride: float) -> None:
    with pytest.raises(ValueError, match=f"stride must .*{stride!r}"):
        AdaptiveStep(stride)
