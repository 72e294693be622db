"""Weights that let signal and error through, whatever they were before."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard
from grad_callbacks.detection.diagnosis.signal_flow import examine
from grad_callbacks.treatment.remedies._support.fresh_weights import start_again
from grad_callbacks.treatment.remedies._support.initialisation import initialise, spread
from grad_callbacks.treatment.remedies._support.post_init_steps import FIT_GATED, FIT_PLAIN, LIMITS, FittedSteps
from grad_callbacks.treatment.remedies._support.recurrent_init import Sequences
from tests.support.helpers import Regression, fit, mlp, pending

ACTIVATIONS: list[type[nn.Module]] = [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.LeakyReLU, nn.SiLU]


def batch(features: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, features, generator=generator), torch.randn(64, 4, generator=generator)


@settings(max_examples=20, deadline=None)
@given(
    depth=st.integers(2, 20),
    std=st.sampled_from([0.001, 0.05, 1.0]),
    bias=st.sampled_from([-5.0, 0.0, 3.0]),
    which=st.integers(0, len(ACTIVATIONS) - 1),
)
def test_it_is_well_afterwards_or_nothing_has_changed(depth: int, std: float, bias: float, which: int) -> None:
    torch.manual_seed(0)
    model = mlp(8, *[32] * depth, 4, activation=ACTIVATIONS[which])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std) if parameter.ndim > 1 else nn.init.constant_(parameter, bias)
    inputs, targets = batch()
    replay = lambda: nn.functional.mse_loss(model(inputs), targets)  # noqa: E731
    before, was = [p.detach().clone() for p in model.parameters()], spread(examine(model, replay))
    buffers = torch.get_rng_state()
    detail = initialise(model, "lsuv", replay)
    assert torch.equal(torch.get_rng_state(), buffers)
    now = spread(examine(model, replay))
    if detail is None:
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    else:
        assert now < was
        assert now < 1.5, "signal and error keep within a factor of 30 over all layers"


def test_the_same_weights_come_out_whatever_the_random_state() -> None:
    def made(seed: int) -> list[Tensor]:
        torch.manual_seed(0)
        model = mlp(8, *[16] * 8, 4, activation=nn.Sigmoid)
        torch.manual_seed(seed)
        inputs, targets = batch()
        initialise(model, "lsuv", lambda: nn.functional.mse_loss(model(inputs), targets))
        return list(model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(made(1), made(2), strict=True))


def test_convolutions_recurrences_and_attention_are_initialised_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.TransformerEncoderLayer(10, 2, 16),
        nn.LSTM(10, 6, batch_first=True),
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1e-3)
    inputs = torch.randn(5, 2, 10)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    detail = initialise(model, "lsuv", lambda: model(inputs)[0].square().mean())
    assert detail is not None
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"0.weight", "2.self_attn.in_proj_weight", "2.linear1.weight", "3.weight_ih_l0", "3.weight_hh_l0"} <= changed


def test_without_a_batch_the_weights_are_orthogonal() -> None:
    model = mlp(8, 8, 8, activation=nn.Tanh)
    assert initialise(model, "lsuv", None) == {"scheme": "lsuv", "measured": False}
    weight = model[0].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), rtol=0, atol=1e-5)


def test_a_head_behind_sigmoids_starts_small_since_their_mean_makes_it_steep() -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 16, 16, 4, activation=nn.Sigmoid)
    inputs = torch.randn(64, 8)
    assert initialise(model, "lsuv", lambda: model(inputs).square().mean()) is not None
    outputs = model(inputs).detach()
    assert float((outputs - outputs.mean(0)).square().mean().sqrt()) == pytest.approx(0.05, rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(units=st.integers(2, 9), rectifies=st.booleans(), seed=st.integers(0, 99))
def test_a_plain_recurrence_keeps_lengths_and_its_states_are_small(units: int, rectifies: bool, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.RNN(3, units, nonlinearity="relu" if rectifies else "tanh", batch_first=True)
    start_again(net, "lsuv", "", {net: Sequences(40, 5.0)})
    weight = net.weight_hh_l0.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(units), rtol=0, atol=1e-5)
    assert torch.equal(weight, torch.eye(units)) is rectifies or units < 4  # a single pair turns by nothing
    states, _ = net(5 * torch.randn(64, 40, 3))
    assert 0.05 < float(states.detach()[:, -1].square().mean().sqrt()) < 0.4


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_the_gates_of_a_cell_do_not_depend_on_its_states_at_first(cell: type[nn.RNNBase]) -> None:
    net = cell(3, 8)
    start_again(net, "lsuv", "", {net: Sequences(100)})
    gates = list(net.weight_hh_l0.detach().split(8))
    candidate = gates.pop(2)
    torch.testing.assert_close(candidate @ candidate.T, torch.eye(8), rtol=0, atol=1e-5)
    assert not any(gate.any() for gate in gates)
    spans = net.bias_ih_l0.detach().split(8)[1].exp()
    assert (float(spans[0]), float(spans[-1])) == pytest.approx((1.0, 99.0))


def test_nothing_that_comes_from_the_early_steps_is_worse_than_anything() -> None:
    net = nn.RNN(2, 8, batch_first=True)
    with torch.no_grad():
        net.weight_hh_l0.mul_(0.01)
    inputs = torch.randn(4, 150, 2)
    assert spread(examine(net, lambda: net(inputs)[0][:, -1].square().mean())) == math.inf


class Recall(nn.Module):
    """A plain recurrence that forgets within some steps, and reads at the end what it was told at the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNN(2, 24, batch_first=True)
        self.head = nn.Linear(24, 1)
        nn.init.orthogonal_(self.cell.weight_hh_l0, gain=0.4)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.cell(x)[0][:, -1])
        return outputs


def told_early(length: int = 60) -> tuple[Tensor, Tensor]:
    """Sequences with noise, and a sign at the third step that is to be told at the end."""
    targets = torch.randint(0, 2, (320, 1)) * 2.0 - 1
    inputs = torch.cat([0.1 * torch.randn(320, length, 1), torch.zeros(320, length, 1)], dim=2)
    inputs[:, 3, 1] = targets[:, 0]
    return inputs, targets


class Strides(Callback):
    """How far each step has moved the weights, relative to them."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found: list[float] = []
        self.before = nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        now = nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone()
        self.found.append(float((now - self.before).norm() / self.before.norm()))
        self.before = now


@pytest.mark.numerics
@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "epochs", "longest"),
    [
        (partial(torch.optim.SGD, lr=0.05), 25, LIMITS.sgd_plain_rnn_stride),
        (partial(torch.optim.RMSprop, lr=0.003), 25, FIT_PLAIN.stride),
    ],
)
def test_a_recurrence_that_forgets_learns_by_steps_that_are_limited(
    optimizer: Any, epochs: int, longest: float
) -> None:
    torch.manual_seed(0)
    inputs, targets = told_early()
    guard, strides = GradientGuard(), Strides()
    task = Regression(Recall(), optimizer)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    fit(task, guard, strides, data=loader, max_epochs=epochs)
    assert [made.remedy for made in guard.interventions] == ["Reinitialize"]
    assert guard.interventions[0].detail["stride"] == longest
    assert max(strides.found[1:12]) < 2 * longest, "a step is seen late, and its gradient may be twice the usual"
    assert float((task.model(inputs).sign() == targets).float().mean()) > 0.95


@pytest.mark.numerics
@pytest.mark.slow
@pytest.mark.parametrize("prescription", ["full", "observe"])
def test_a_chaotic_recurrence_that_learns_nothing_learns_after_a_new_beginning(prescription: str) -> None:
    torch.manual_seed(2)
    (inputs, targets), task = told_early(), Regression(Recall(), partial(torch.optim.SGD, lr=0.02))
    with torch.no_grad():
        weight = nn.init.normal_(task.model.cell.weight_hh_l0)
        weight *= 1.3 / torch.linalg.eigvals(weight).abs().max()
    guard = GradientGuard(prescription)
    fit(task, guard, data=DataLoader(TensorDataset(inputs, targets), batch_size=32), max_epochs=30)
    [alert] = guard.alerts
    assert (alert.step, alert.cause) == (79, "recurrence over many steps")
    is_right = float((task.model(inputs).sign() == targets).float().mean())
    assert is_right > 0.95 if prescription == "full" else is_right < 0.6


def test_a_rate_is_fitted_once_to_what_was_measured_once() -> None:
    model = Recall()
    model(torch.randn(4, 20, 2)).square().mean().backward()
    step, steps = pending(model, torch.optim.RMSprop(model.parameters(), lr=0.01)), FittedSteps()
    steps.begin(step, model)
    steps.act(step)
    before = step.learning_rate.scale
    for _ in range(10):
        steps.note(replace(step.reading, moved=4 * FIT_PLAIN.stride))
        steps.act(step)
    assert step.learning_rate.scale == pytest.approx(before / 4)


@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM])
def test_a_large_gradient_leads_no_optimizer_of_a_recurrence_astray(cell: type[nn.RNNBase]) -> None:
    model, outliers = cell(2, 8), {3, 11, 12}
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    steps, sizes = FittedSteps(), []
    for number in range(20):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e6 if number in outliers else 1.0)
        step = pending(model, optimizer)
        if number == 0:
            steps.begin(step, model)
        steps.note(step.reading)
        steps.act(step)
        sizes.append(float(next(model.parameters()).grad.max()))  # type: ignore[union-attr]
    assert sizes == [pytest.approx(2.0 if number in outliers else 1.0) for number in range(20)]


def strides(cell: nn.Module, rates: Iterable[float], per_rate: float, cut_at: int = -1) -> list[float]:
    """Return how far the steps at these rates of the user's move a net whose motion is ``per_rate`` of its rate.

    Another remedy lowers the rate to a tenth at step ``cut_at``.
    """
    cell(torch.randn(4, 20, 2))[0].square().mean().backward()
    optimizer = torch.optim.RMSprop(cell.parameters())
    step, steps, found = pending(cell, optimizer), FittedSteps(), []
    steps.begin(step, cell)
    for number, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        if number == cut_at:
            step.learning_rate.reduce(0.1)
        steps.act(step)
        found.append(per_rate * step.learning_rate.effective()[0])
        steps.note(replace(step.reading, moved=found[-1]))
    return found


@pytest.mark.parametrize("cell", [nn.LSTM(2, 8), nn.GRU(2, 8)])
@pytest.mark.parametrize("per_rate", [0.2, 3.0, 100.0], ids=["too slow", "about right", "too fast"])
def test_steps_of_gated_cells_are_fitted_from_both_sides(cell: nn.Module, per_rate: float) -> None:
    assert strides(cell, [0.01] * 40, per_rate)[-1] == pytest.approx(FIT_GATED.stride)


def test_a_rate_does_not_rise_without_end() -> None:
    assert strides(nn.GRU(2, 8), [0.01] * 60, 1e-4)[-1] == pytest.approx(FIT_GATED.most * 0.01 * 1e-4)


def test_a_plain_recurrence_never_gets_more_than_the_users_rate() -> None:
    assert max(strides(nn.RNN(2, 8), [0.01] * 60, 0.2)) == pytest.approx(0.01 * 0.2)


def test_a_schedule_still_counts_where_the_rate_is_fitted() -> None:
    schedule = [0.01] * 40 + [0.001] * 40
    assert strides(nn.LSTM(2, 8), schedule, 0.2)[-1] == pytest.approx(FIT_GATED.stride / 10)


@pytest.mark.parametrize("cell", [nn.LSTM(2, 8), nn.RNN(2, 8)])
def test_a_rate_that_another_remedy_has_lowered_is_not_raised_again(cell: nn.Module) -> None:
    found = strides(cell, [0.01] * 80, 10.0, cut_at=40)
    assert found[-1] == pytest.approx(found[39] / 10)


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.1), partial(torch.optim.RMSprop, lr=0.01)])
def test_fitted_steps_go_on_from_a_checkpoint(make: Any) -> None:
    torch.manual_seed(0)
    model = Recall()
    model(torch.randn(4, 20, 2)).square().mean().backward()
    optimizer = make(model.parameters())
    steps, resumed = FittedSteps(), FittedSteps()
    step = pending(model, optimizer)
    steps.begin(step, model)
    assert steps.act(step)
    resumed.load_state_dict(json.loads(json.dumps(steps.state_dict())))
    later = [(each, pending(model, optimizer)) for each in (steps, resumed)]
    for each, step in later:
        each.note(replace(step.reading, moved=0.001))
        each.act(step)
    (_, one), (_, other) = later
    assert one.norm == other.norm
    assert json.dumps(steps.state_dict()) == json.dumps(resumed.state_dict()), "NaN too"


def test_a_deep_net_takes_no_step_that_would_undo_its_initialisation() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(320, 4)
    guard, strides = GradientGuard({"vanishing": ["Reinitialize"]}), Strides()
    task = Regression(mlp(4, *[16] * 10, 2, activation=nn.Sigmoid), partial(torch.optim.SGD, lr=100.0))
    loader = DataLoader(TensorDataset(inputs, 3 * inputs[:, :2]), batch_size=32)
    fit(task, guard, strides, data=loader, max_epochs=3)
    assert guard.interventions[0].detail["stride"] == LIMITS.sgd_stride
    assert 0.9 * LIMITS.sgd_stride < max(strides.found[1:]) < 1.2 * LIMITS.sgd_stride, "steps were clipped to that"


def test_sigmoid_convolutions_use_more_of_the_sigmoid_than_linear_layers_do() -> None:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 8, 3, padding=1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))]
    layers = [layer for convolution in convolutions for layer in (convolution, nn.Sigmoid())]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    x, y = torch.randn(32, 1, 8, 8), torch.randint(4, (32,))
    assert initialise(model, "lsuv", lambda: nn.functional.cross_entropy(model(x), y)) is not None
    assert model(x).square().mean().sqrt().item() == pytest.approx(0.3, rel=0.01)
    for end in range(1, len(layers), 2):
        assert model[:end](x).square().mean().sqrt().item() == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize(("kind", "shape"), [(nn.Linear, ()), (partial(nn.Conv2d, kernel_size=1), (2, 2))])
def test_a_code_without_an_activation_behind_it_keeps_all_its_units(kind: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    sizes = [16, 16, 16, 8, 16, 16, 16]
    layers = [kind(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
    activations = [nn.Identity() if module.weight.shape[0] == 8 else nn.ReLU() for module in layers]
    model = nn.Sequential(*(part for pair in zip(layers, activations, strict=True) for part in pair))
    for module in layers:
        nn.init.normal_(module.weight, std=0.01)
    inputs = torch.randn(16, 16, *shape)
    assert initialise(model, "lsuv", lambda: model(inputs).square().mean())
    is_halved = [torch.allclose(m.weight[: len(m.weight) // 2], -m.weight[len(m.weight) // 2 :]) for m in layers]
    assert is_halved == [True, True, False, True, True, False]
    assert int(torch.linalg.matrix_rank(layers[2].weight.flatten(1))) == 8
