from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.support.helpers import layers_of, mlp, read


def brute_force(model: nn.Module) -> float:
    gradients = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
    flat = [torch.view_as_real(g) if g.is_complex() else g for g in gradients]
    return math.sqrt(sum(float(g.double().square().sum()) for g in flat))


def test_the_global_norm_is_the_root_of_summed_squares_not_the_sum_of_norms() -> None:
    model = mlp(2, 1, 1)
    for p, value in zip(model.parameters(), (6.0, 0.0, 8.0, 0.0), strict=True):
        p.grad = torch.zeros_like(p)
        p.grad.view(-1)[0] = value
    reading = read(layers_of(model), step=3)
    assert reading.norm == pytest.approx(10.0)
    assert reading.layer_norms.tolist() == [6.0, 8.0]
    assert reading.step == 3


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    scale=st.floats(1e-30, 1e30),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_norms_agree_with_brute_force(sizes: list[int], scale: float, dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = mlp(*sizes).to(dtype)
    for p in model.parameters():
        p.grad = (torch.randn(p.shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    reading = read(layers_of(model))
    assert reading.norm == pytest.approx(brute_force(model), rel=1e-5)
    assert math.sqrt((reading.layer_norms**2).sum()) == pytest.approx(reading.norm, rel=1e-12)
    assert reading.nonfinite == 0


def test_half_precision_does_not_overflow() -> None:
    model = nn.Linear(10, 10, bias=False).half()
    model.weight.grad = torch.full((10, 10), 3e4, dtype=torch.float16)
    assert read(layers_of(model)).norm == pytest.approx(3e5, rel=1e-3)


def test_a_large_finite_gradient_is_not_non_finite() -> None:
    model = nn.Linear(1, 2, bias=False)
    model.weight.grad = torch.tensor([[3e30], [4e30]])
    reading = read(layers_of(model))
    assert reading.norm == pytest.approx(5e30)
    assert reading.is_finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_parameters_with_non_finite_gradients_are_counted(bad: float) -> None:
    model = mlp(3, 3, 3)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model[0].weight.grad[0, :2] = bad
    reading = read(layers_of(model))
    assert reading.nonfinite == 1
    assert not reading.is_finite
    assert math.isfinite(reading.layer_norms[1])


def test_sparse_gradients_of_repeated_rows_are_added_before_the_norm() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    model(torch.tensor([1, 1, 3])).sum().backward()
    assert read(layers_of(model)).norm == pytest.approx(brute_force(model)) == pytest.approx(math.sqrt(10))


def test_complex_gradients() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    model.weight.grad = torch.tensor([3 + 0j, 0 + 4j])
    assert read(layers_of(model)).norm == pytest.approx(5.0)


def test_tied_and_frozen_and_empty_parameters() -> None:
    model = mlp(3, 3, 3, 3)
    model[2].weight = model[0].weight  # tied: counted once, under its first owner
    model[4].weight.requires_grad_(False)
    model.empty = nn.Parameter(torch.zeros(0, 3))
    (model[4](model[2](model[0](torch.ones(1, 3)))).sum() + model.empty.sum()).backward()
    reading = read(layers_of(model))
    assert reading.norm == pytest.approx(brute_force(model))
    assert len(reading.norms) == len(list(model.parameters()))


def test_no_gradient_at_all_gives_no_reading() -> None:
    assert read(layers_of(mlp(2, 2))) is None


def test_a_loss_scale_is_divided_out() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.tensor([[65536.0 * 3]])
    assert read(layers_of(model), loss_scale=65536.0).norm == pytest.approx(3.0)


def test_under_a_loss_scaler_a_non_finite_gradient_is_an_overflow() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.tensor([[math.inf]])
    assert read(layers_of(model), under_scaler=True).overflow
    assert not read(layers_of(model)).overflow


def test_embeddings_are_no_part_of_the_profile() -> None:
    model = nn.Sequential(nn.Embedding(1000, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model(torch.tensor([1, 2])).sum().backward()
    reading = read(layers_of(model))
    assert len(reading.layer_norms) == 3
    assert len(reading.profile) == 2
