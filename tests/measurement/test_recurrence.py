from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grad_callbacks import Engine, Reading
from grad_callbacks.measurement.recurrence import log_radius, recurrent_weights
from tests.support.helpers import SGD


class Last(nn.Module):
    """Reads a sequence and answers from its last output, or from all of them."""

    def __init__(self, recurrent: nn.RNNBase, whole: bool = False) -> None:
        super().__init__()
        self.recurrent, self.whole = recurrent, whole
        self.head = nn.Linear(recurrent.hidden_size, 1)

    def forward(self, sequence: Tensor) -> Tensor:
        outputs = self.recurrent(sequence)[0]
        if not self.whole:
            outputs = outputs[:, -1] if self.recurrent.batch_first else outputs[-1]
        return self.head(outputs)  # type: ignore[no-any-return]


def with_radius(radius: float, **options: Any) -> nn.RNN:
    """A tanh RNN without biases whose recurrent matrix is orthogonal times ``radius``."""
    recurrent = nn.RNN(3, 16, bias=False, **options)
    nn.init.orthogonal_(recurrent.weight_hh_l0, gain=radius)
    return recurrent


def through_time(model: Last, inputs: Tensor, steps: int = 1) -> list[float]:
    return [seen.through_time for seen in readings(model, inputs, steps)]


def readings(model: Last, inputs: Tensor, steps: int = 1) -> list[Reading]:
    engine = Engine(model, SGD(model.parameters(), lr=0.0))
    seen = []
    for _ in range(steps):
        loss = model(inputs).square().mean()
        loss.backward()
        outlook = engine.before_step(loss=loss)
        engine.optimizer.step()
        assert outlook is not None
        seen.append(outlook.reading)
    engine.close()
    return seen


@pytest.mark.parametrize("batch_first", [True, False])
def test_it_agrees_with_the_gradient_of_the_input(batch_first: bool) -> None:
    model = Last(with_radius(0.7, batch_first=batch_first))
    inputs = torch.randn(*((8, 30, 3) if batch_first else (30, 8, 3)))
    [seen] = through_time(model, inputs)
    asked = inputs.clone().requires_grad_()
    model(asked).square().mean().backward()
    assert asked.grad is not None
    sizes = torch.linalg.vector_norm(asked.grad, dim=(0, 2) if batch_first else (1, 2))
    assert seen == pytest.approx(float(sizes[:10].median() / sizes.max()), rel=1e-5)


def test_a_small_spectral_radius_vanishes_through_time_and_a_large_one_does_not() -> None:
    inputs = 0.01 * torch.randn(8, 50, 3)  # small, so that tanh is nearly linear
    small, one = (through_time(Last(with_radius(r, batch_first=True)), inputs)[0] for r in (0.5, 1.0))
    assert small < 1e-8
    assert one > 0.1


def test_an_answer_at_every_step_does_not_vanish() -> None:
    assert through_time(Last(with_radius(0.5, batch_first=True), whole=True), torch.randn(8, 50, 3))[0] > 0.1


@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM, nn.GRU])
def test_watching_changes_no_gradient(cell: type[nn.RNNBase]) -> None:
    model, inputs = Last(cell(3, 16, batch_first=True)), torch.randn(8, 20, 3)
    model(inputs).square().mean().backward()
    bare = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    through_time(model, inputs)
    watched = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))
    assert not inputs.requires_grad


def test_it_is_measured_at_first_and_then_at_intervals() -> None:
    seen = through_time(Last(with_radius(0.9, batch_first=True)), torch.randn(4, 12, 3), steps=60)
    assert [step for step, ratio in enumerate(seen) if math.isfinite(ratio)] == [0, 1, 2, 25, 50]


def test_no_hook_stays() -> None:
    model = Last(with_radius(0.9))
    engine = Engine(model, SGD(model.parameters(), lr=0.0))
    assert model.recurrent._forward_pre_hooks
    engine.close()
    assert not model.recurrent._forward_pre_hooks


@pytest.mark.parametrize("radius", [0.3, 1.0, 1.2, 30.0])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_first_reading_tells_what_the_recurrence_would_make_of_an_error(radius: float, batch_first: bool) -> None:
    model = Last(with_radius(radius, batch_first=batch_first))
    first, second = readings(model, torch.randn(*((8, 300, 3) if batch_first else (300, 8, 3))), steps=2)
    assert first.recurrence == pytest.approx(300 * math.log10(radius), abs=1e-4)
    assert math.isnan(second.recurrence), "later weights have been trained"


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 40), gain=st.floats(0.1, 10.0))
def test_its_spectral_radius_is_that_of_the_eigenvalues(seed: int, width: int, gain: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = gain * torch.randn(width, width, generator=generator) / math.sqrt(width)
    exact = float(torch.linalg.eigvals(weight.double()).abs().max())
    assert math.exp(float(log_radius(weight))) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("weight", [torch.zeros(4, 4), torch.triu(torch.ones(4, 4), 1)], ids=["zero", "nilpotent"])
def test_a_matrix_whose_powers_vanish_has_no_radius(weight: Tensor) -> None:
    assert float(log_radius(weight)) == -math.inf


@pytest.mark.parametrize("recurrent", [nn.LSTM(3, 8), nn.RNN(3, 8).requires_grad_(False)])
def test_gated_cells_and_frozen_recurrences_have_none(recurrent: nn.RNNBase) -> None:
    [seen] = readings(Last(recurrent), torch.randn(20, 4, 3))
    assert math.isnan(seen.recurrence)


def test_parts_of_weights_and_very_large_ones_are_left_out() -> None:
    whole, part, large = nn.RNN(3, 8, num_layers=2, bidirectional=True), nn.RNN(3, 8), nn.RNN(1, 1025)
    part.weight_hh_l0 = nn.Parameter(torch.zeros(32))  # as a process of several has it
    assert [len(recurrent_weights(module)) for module in (whole, part, large)] == [4, 0, 0]
