"""Signal and error of the layers, as the first readings and every fiftieth have them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from grad_callbacks import Engine, Reading
from grad_callbacks.measurement.schedule import SCHEDULE
from tests.support.helpers import hooks


def net(*, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8, bias=bias), nn.Tanh(), nn.Linear(8, 8, bias=bias), nn.Tanh(), nn.Linear(8, 1))


class Watched:
    """A plain loop that keeps its readings."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        self.engine = Engine(model, self.optimizer)
        self.loss = loss or (lambda model, x: model(x).square().mean())
        self.batches = torch.Generator().manual_seed(1)

    def step(self) -> Reading:
        loss = self.loss(self.model, torch.randn(16, 4, generator=self.batches))
        loss.backward()
        result = self.engine.before_step(loss=loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        assert result is not None
        return result.reading


def by_hand(model: nn.Sequential, x: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Root mean square, share that differs over the batch, and the gradient's norm, of each linear layer's output."""
    outputs, value = [], x
    for module in model:
        value = module(value)
        if isinstance(module, nn.Linear):
            outputs.append(value)
    errors = torch.autograd.grad(value.square().mean(), outputs)
    sizes = [o.square().mean().sqrt().item() for o in outputs]
    spreads = [(o.var(0, correction=0).mean() / o.square().mean()).sqrt().item() for o in outputs]
    return sizes, spreads, [float(e.norm()) for e in errors]


@pytest.mark.parametrize("bias", [False, True])
def test_the_first_reading_has_what_a_loop_by_hand_finds(bias: bool) -> None:
    model = net(bias=bias)
    expected = by_hand(copy.deepcopy(model), torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))
    reading = Watched(model).step()
    assert reading.signal is not None
    assert reading.spread is not None
    for found, wanted in zip((reading.signal, reading.spread, reading.error), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)
    assert reading.error_profile.tolist() == pytest.approx(expected[2], rel=1e-5)


def test_hooks_are_there_for_the_measured_passes_only_and_the_last_numbers_stay() -> None:
    run = Watched(net())
    readings, hooked = [], []
    for _ in range(2 * SCHEDULE.interval + 2):
        hooked.append(hooks(run.model) > 0)
        readings.append(run.step())
    assert [place for place, is_hooked in enumerate(hooked) if is_hooked] == [
        *range(SCHEDULE.first),
        2 * SCHEDULE.interval,
    ]
    last, then = readings[SCHEDULE.first - 1], readings[2 * SCHEDULE.interval - 1]
    assert np.array_equal(last.error, then.error)
    assert not np.array_equal(then.error, readings[2 * SCHEDULE.interval].error)
    run.engine.close()
    assert hooks(run.model) == 0


def test_measuring_changes_no_bit() -> None:
    models = [net(), net()]
    for model, is_watched in zip(models, (True, False), strict=True):
        run = Watched(model)
        if not is_watched:
            run.engine.close()
            run.engine = Engine(nn.Linear(1, 1), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
            run.step = lambda run=run: _unwatched_step(run)  # type: ignore[method-assign]
        for _ in range(5):
            run.step()
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def _unwatched_step(run: Watched) -> None:
    run.loss(run.model, torch.randn(16, 4, generator=run.batches)).backward()
    run.optimizer.step()
    run.optimizer.zero_grad()


class Functional(nn.Module):
    """One layer that is called as a module, one that is written as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.called = nn.Linear(4, 4)
        self.weights = nn.ParameterList([nn.Parameter(torch.eye(4))])

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.called(x), self.weights[0])


def test_a_layer_that_is_written_as_a_function_is_unknown() -> None:
    reading = Watched(Functional()).step()
    assert reading.error is not None
    known = dict(zip(reading.layers.names, np.isfinite(reading.error), strict=True))
    assert known == {"called": True, "weights.0": False}
    assert len(reading.error_profile) == 1


def _checkpointed(reentrant: bool) -> Callable[[nn.Module, Tensor], Tensor]:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(model, x.requires_grad_(), use_reentrant=reentrant).square().mean()  # type: ignore[no-any-return]

    return loss


def _under_vmap(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.vmap(model)(x).square().mean()


def _twice(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x).square().mean() + model(x).square().mean()) / 2


def _gradient_penalty(model: nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return model(x).square().mean() + 0 * slope.square().mean()


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_shows_the_same(reentrant: bool) -> None:
    plain, checkpointed = Watched(net()).step(), Watched(net(), _checkpointed(reentrant)).step()
    assert checkpointed.error == pytest.approx(plain.error, rel=1e-5)
    assert checkpointed.signal == pytest.approx(plain.signal, rel=1e-5)


@pytest.mark.parametrize("loss", [_under_vmap, _twice, _gradient_penalty])
def test_unusual_passes_do_not_disturb(loss: Callable[[nn.Module, Tensor], Tensor]) -> None:
    run = Watched(net(), loss)
    assert all(math.isfinite(run.step().norm) for _ in range(3))


class Through(nn.Module):
    """A plain recurrence whose last state is the answer."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.cell = nn.RNN(1, 8, batch_first=True, bias=False)
        nn.init.orthogonal_(self.cell.weight_hh_l0, gain)
        self.head = nn.Linear(8, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("gain", [0.5, 4.0])
def test_the_error_of_a_recurrent_layer_has_come_back_through_time(gain: float) -> None:
    torch.manual_seed(0)
    model = Through(gain)
    x = 1e-3 * torch.randn(16, 4, generator=torch.Generator().manual_seed(1))[:, :, None]
    sequence = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(copy.deepcopy(model)(sequence).sum(), sequence)
    reading = Watched(model, lambda model, x: model(1e-3 * x[:, :, None]).sum()).step()
    assert reading.error is not None
    cell, head = reading.error
    assert cell == pytest.approx(expected.norm().item(), rel=1e-5)
    assert head == pytest.approx(4.0), "the gradient of a sum, over 16 examples"
    assert (cell > head) == (gain > 1), "the states are small: each step multiplies the error by the gain"


def test_a_resumed_run_measures_at_the_same_readings() -> None:
    whole = Watched(net())
    for _ in range(2 * SCHEDULE.interval - 1):
        whole.step()
    state, weights = copy.deepcopy(whole.engine.state_dict()), copy.deepcopy(whole.model.state_dict())
    resumed = Watched(net())
    resumed.model.load_state_dict(weights)
    resumed.engine.load_state_dict(state)
    resumed.batches = torch.Generator().manual_seed(1)
    resumed.batches.set_state(whole.batches.get_state())
    for _ in range(3):
        one, other = whole.step(), resumed.step()
        assert np.array_equal(one.error, other.error)
        assert np.array_equal(one.signal, other.signal)
