"""Models, their initialisations, and the data and tasks they are for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments import inits
from experiments.data import PixelDigits, TemporalOrder, Text
from experiments.models import Convolutional, Recurrent, ResidualConvolutional, ResidualMLP, Transformer
from experiments.models.residual import Residual
from experiments.tasks import Language, Regressor

HE: dict[str, Any] = {"activation": nn.ReLU, "init": inits.he}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain cnn": lambda: Convolutional(64, 10, depth=3, channels=4, **HE),
    "cnn with batch norm": lambda: Convolutional(64, 10, depth=3, channels=4, batch_norm=True, **HE),
    "cnn without pooling": lambda: Convolutional(64, 10, depth=1, channels=4, pool=None, **HE),
    "residual mlp": lambda: ResidualMLP(64, 10, blocks=2, width=8, norm=nn.LayerNorm, **HE),
    "residual cnn": lambda: ResidualConvolutional(64, 10, blocks=2, channels=4, batch_norm=True, **HE),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_digits_answers_for_each_and_all_its_weights_get_gradients(name: str) -> None:
    model = MODELS[name]()
    logits = model(torch.randn(5, 64))
    assert logits.shape == (5, 10)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_conv_net_has_the_depth_it_is_asked_for() -> None:
    model = Convolutional(64, 10, depth=7, channels=4, **HE)
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 7


def test_scaled_branches_keep_the_size_of_the_signal_and_unscaled_ones_do_not() -> None:
    def growth(scale: float | None) -> float:
        model = ResidualMLP(64, 10, blocks=30, width=64, norm=nn.Identity, branch_scale=scale, **HE)
        stem = model.stem(torch.randn(200, 64))
        return (model.blocks(stem).std() / stem.std()).item()

    assert growth(None) < 3
    assert growth(1.0) > 2**12  # each block doubles the variance: 2 ** 15 in expectation


def test_a_residual_of_scale_zero_is_the_identity() -> None:
    x = torch.randn(3, 4)
    assert Residual(nn.Linear(4, 4), scale=0.0)(x).equal(x)


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_recurrent_weights_have_the_radius_they_are_asked_for(cell: str) -> None:
    model = Recurrent(3, 5, cell=cell, hidden=20, layers=2, recurrent_init="gaussian", spectral_radius=1.3)
    assert model(torch.randn(2, 7, 3)).shape == (2, 5)
    for layer in (model.cell.weight_hh_l0, model.cell.weight_hh_l1):
        for gate in layer.detach().split(20):
            assert float(torch.linalg.eigvals(gate).abs().max()) == pytest.approx(1.3, rel=1e-3)


def test_orthogonal_recurrent_weights_keep_lengths() -> None:
    weight = Recurrent(3, 5, cell="tanh", hidden=20, recurrent_init="orthogonal").cell.weight_hh_l0
    assert torch.allclose(weight @ weight.T, torch.eye(20), atol=1e-5)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_transformer_does_not_look_ahead(pre_norm: bool) -> None:
    model = Transformer(9, 9, context=6, depth=2, width=8, heads=2, pre_norm=pre_norm, **HE).eval()
    tokens = torch.randint(9, (3, 6))
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 9
    before, after = model(tokens), model(changed)
    assert before.shape == (3, 6, 9)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert not torch.allclose(before[:, 4], after[:, 4], atol=1e-5)


def test_the_norm_of_a_post_ln_layer_is_its_last_word() -> None:
    model = Transformer(9, 9, context=6, depth=2, width=8, heads=2, pre_norm=False, **HE)
    x = model.layers(10 * torch.randn(3, 6, 8))
    assert torch.allclose(x.mean(dim=2), torch.zeros(3, 6), atol=1e-5)
    assert torch.allclose(x.var(dim=2, correction=0), torch.ones(3, 6), atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolutional(64, 10, depth=0, channels=4, **HE), "depth must be a whole number of at least 1, got 0"),
        (lambda: Convolutional(60, 10, depth=1, channels=4, **HE), "in_features must be a square number, got 60"),
        (lambda: Recurrent(1, 1, cell="rnn"), "cell must be one of tanh, lstm, gru, got 'rnn'"),
        (lambda: Recurrent(1, 1, recurrent_init="big"), "recurrent_init must be default, orthogonal or gaussian"),
        (lambda: Transformer(9, 9, 6, 1, 8, 3, pre_norm=True, **HE), "heads must divide width 8, got 3"),
        (lambda: PixelDigits(steps=7), "steps must be a divisor of 64, got 7"),
        (lambda: TemporalOrder(length=9), "length must be a whole number of at least 10, got 9"),
        (lambda: Text(context=0), "context must be a whole number from 1 to"),
    ],
)
def test_a_wrong_argument_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("layer", [nn.Linear(64, 64), nn.Conv2d(16, 16, 3), nn.Linear(64, 64, bias=False)], ids=str)
@pytest.mark.parametrize(
    ("init", "std"),
    [
        (inits.xavier, lambda fan_in: fan_in**-0.5),  # fan-out is fan-in here
        (inits.he, lambda fan_in: (2 / fan_in) ** 0.5),
        (partial(inits.he, gain=3.0), lambda fan_in: 3 * (2 / fan_in) ** 0.5),
        (inits.large, lambda fan_in: 0.6),
        (inits.small, lambda fan_in: 0.01),
    ],
)
def test_weights_have_the_spread_that_their_initialisation_names(
    layer: nn.Linear | nn.Conv2d, init: Callable[[nn.Module], None], std: Callable[[int], float]
) -> None:
    init(layer)
    assert float(layer.weight.detach().std()) == pytest.approx(std(layer.weight[0].numel()), rel=0.05)
    assert layer.bias is None or not layer.bias.any()


def test_biases_can_be_what_silences_relu() -> None:
    layer = nn.Linear(64, 64)
    inits.he(layer, bias=-10.0)
    assert not layer(torch.randn(100, 64)).relu().any()


def test_text_is_predicted_one_character_ahead() -> None:
    data = Text(batch_size=4, context=16)
    inputs, targets = next(iter(data.train_dataloader()))
    assert inputs.shape == targets.shape == (4, 16)
    assert targets[:, :-1].equal(inputs[:, 1:])
    assert int(inputs.max()) < data.in_features == data.out_features


def test_pixels_are_read_in_order() -> None:
    [(rows, labels)] = PixelDigits(steps=8).val_dataloader()
    [(pixels, same)] = PixelDigits(steps=64).val_dataloader()
    assert rows.shape == (360, 8, 8)
    assert pixels.flatten(1).equal(rows.flatten(1))
    assert labels.equal(same)


def test_the_temporal_order_is_that_of_the_two_symbols() -> None:
    [(sequences, classes)] = TemporalOrder(length=30).val_dataloader()
    symbols = sequences.argmax(dim=2)
    for row, answer in zip(symbols, classes, strict=True):
        [first, second] = torch.nonzero(row < 2).flatten().tolist()
        assert 3 <= first < 6
        assert 12 <= second < 15
        assert int(answer) == 2 * int(row[first]) + int(row[second])


class Always(nn.Module):
    """Gives every token the same logits."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits.expand(*tokens.shape, len(self.logits))


def line(slope: float, height: float) -> nn.Linear:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, slope)
    nn.init.constant_(model.bias, height)
    return model


SGD = partial(torch.optim.SGD, lr=0.1)


def quality(task: LightningModule, inputs: Tensor, targets: Tensor) -> float:
    batches = DataLoader(TensorDataset(inputs, targets), batch_size=len(inputs))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    [metrics] = trainer.validate(task, batches, verbose=False)
    return metrics["val/quality"]


@pytest.mark.parametrize(("logit", "expected"), [(0.0, 0.0), (1e4, 1.0)])
def test_the_quality_of_language_is_zero_at_chance_and_one_at_certainty(logit: float, expected: float) -> None:
    tokens = torch.full((3, 5), 2)
    task = Language(Always([0.0, 0.0, logit, 0.0]), SGD)
    assert quality(task, tokens, tokens) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_the_quality_of_regression_is_the_explained_variance(factor: float) -> None:
    targets = torch.randn(50, 1)
    mean = Regressor(line(0.0, factor * float(targets.mean())), SGD, target_factor=factor)
    assert quality(mean, targets, targets) == pytest.approx(0, abs=1e-5)
    exact = Regressor(line(factor, 0.0), SGD, target_factor=factor)
    assert quality(exact, targets, targets) == pytest.approx(1)


def test_a_loss_factor_scales_what_is_trained_and_not_the_quality() -> None:
    tokens = torch.randint(4, (3, 5))
    plain, scaled = (Language(Always([0.0, 1.0, 0.0, 2.0]), SGD, loss_factor=factor) for factor in (1.0, 1e6))
    for task in (plain, scaled):
        task.training_step((tokens, tokens), 0).backward()
    assert torch.allclose(scaled.model.logits.grad, 1e6 * plain.model.logits.grad)
    assert quality(plain, tokens, tokens) == quality(scaled, tokens, tokens)
