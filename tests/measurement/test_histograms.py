from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from grad_callbacks.measurement.histograms import HISTOGRAM, Histograms
from tests.support.helpers import layers_of, mlp


def with_gradients(model: nn.Module, size: float) -> nn.Module:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, size)
    return model


def test_entries_fall_into_the_bin_of_their_size() -> None:
    model = with_gradients(mlp(3, 5, 2), 3e-3)
    model[2].weight.grad[0] = torch.tensor([0.0, torch.nan, torch.inf, 1e9, 1e-20])
    histograms = Histograms()
    histograms.offer(layers_of(model), step=7)
    [taken] = histograms.to_host()
    assert taken.step == 7
    assert taken.layers == ("0", "2")
    place = 1 + int((np.log10(3e-3) - HISTOGRAM.lowest) * HISTOGRAM.per_decade)
    assert taken.shares[0, place] == 1
    assert taken.shares[1, [0, place, -1]].tolist() == [2 / 12, 7 / 12, 3 / 12]
    assert taken.shares.shape == (2, HISTOGRAM.bins)


def test_what_the_gradients_are_scaled_with_is_taken_off() -> None:
    model = with_gradients(mlp(2, 2), 3.0)
    plain, scaled = Histograms(), Histograms()
    plain.offer(layers_of(model), 0)
    with_gradients(model, 3.0 * 2**12)
    scaled.offer(layers_of(model), 0, loss_scale=torch.tensor(2.0**12))
    np.testing.assert_array_equal(plain.to_host()[0].shares, scaled.to_host()[0].shares)


def test_however_long_a_run_is_they_are_few_and_evenly_spread() -> None:
    layers = layers_of(with_gradients(mlp(2, 2), 1.0))
    histograms = Histograms()
    for step in range(3000):
        histograms.offer(layers, step)
    steps = [taken.step for taken in histograms.to_host()]
    assert HISTOGRAM.kept // 2 <= len(steps) <= HISTOGRAM.kept
    assert len(set(np.diff(steps))) == 1
    assert steps[0] == 0


def test_a_deep_model_shows_some_of_its_layers() -> None:
    histograms = Histograms()
    histograms.offer(layers_of(with_gradients(mlp(*[2] * 100), 1.0)), 0)
    [taken] = histograms.to_host()
    assert len(taken.layers) == HISTOGRAM.layers
    assert taken.layers[-1] == str(2 * 98)


def test_layers_without_a_gradient_are_left_out() -> None:
    model = with_gradients(mlp(2, 2, 2), 1.0)
    model[0].weight.grad = model[0].bias.grad = None
    histograms = Histograms()
    histograms.offer(layers_of(model), 0)
    assert histograms.to_host()[0].layers == ("2",)


def test_taking_one_reads_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the host has read a number from the device")

    layers = layers_of(with_gradients(mlp(3, 5, 2), 1.0))
    histograms = Histograms()
    with monkeypatch.context() as patch:
        for reader in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "cpu", "numpy"):
            patch.setattr(torch.Tensor, reader, refuse)
        histograms.offer(layers, 0, loss_scale=torch.tensor(2.0))
    assert len(histograms.to_host()) == 1


def test_it_goes_on_from_its_state() -> None:
    layers = layers_of(with_gradients(mlp(2, 2), 1.0))
    whole, first, second = Histograms(), Histograms(), Histograms()
    for step in range(500):
        whole.offer(layers, step)
        (first if step < 250 else second).offer(layers, step)
        if step == 249:
            second.load_state_dict(first.state_dict())
    assert [taken.step for taken in second.to_host()] == [taken.step for taken in whole.to_host()]
