"""Exponentials of what nothing bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard, GradientMonitor
from grad_callbacks.detection.diagnosis.exponent import largest_exponent
from tests.support.helpers import trainer


class Exponential(nn.Module):
    """Applies an exponential to twice its input."""

    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Tensor:
        return self.made(2 * x)


@pytest.mark.parametrize(
    ("made", "argument"),
    [
        (torch.exp, 14.0),
        (torch.expm1, 14.0),
        (torch.cosh, 16.0),
        (torch.exp2, 14 * math.log(2)),
        (lambda x: torch.exp(x) + torch.exp(x / 2), 14.0),
    ],
    ids=["exp", "expm1", "cosh", "exp2", "two"],
)
def test_the_largest_argument_is_found_with_its_place(made: Callable[[Tensor], Tensor], argument: float) -> None:
    model = nn.Sequential(nn.Identity(), Exponential(made))
    found = largest_exponent(model, lambda: model(torch.tensor([-8.0, 1.0, 7.0])).sum())
    assert found.argument == pytest.approx(argument)
    assert found.module == "1"
    assert found.line.startswith("test_exponent.py:")
    assert found.is_large == (argument > 10)


@pytest.mark.parametrize(
    "made",
    [
        lambda x: torch.exp(x.clamp(max=12)),
        lambda x: torch.exp(-x.abs()),
        lambda x: torch.softmax(x, 0),
        lambda x: torch.logsumexp(x, 0),
        torch.sigmoid,
    ],
    ids=["clamped", "negative", "softmax", "logsumexp", "sigmoid"],
)
def test_others_are_not_large(made: Callable[[Tensor], Tensor]) -> None:
    model = Exponential(made)
    assert not largest_exponent(model, lambda: model(torch.tensor([-8.0, 6.5, 7.0])).sum()).is_large


def test_without_a_batch_nothing_is_found() -> None:
    assert math.isnan(largest_exponent(nn.Identity(), None).argument)


class Autoencoder(LightningModule):
    """A variational autoencoder of features in raw units."""

    def __init__(self, seed: int, bound: float = math.inf) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.bound = bound
        self.encoder = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 20))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        [x] = batch
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        log_variance = log_variance.clamp(max=self.bound)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(dim=1)
        return ((self.decoder(code) - x) ** 2).sum(dim=1).mean() + divergence.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)

    def reconstruction_error(self, *callbacks: GradientMonitor) -> float:
        """Share of the features' spread that is not reconstructed."""
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(400, 3, generator=generator)
        x = 1000 * (hidden @ torch.randn(3, 20, generator=generator)) + 2000
        trainer(*callbacks, max_epochs=30).fit(self, DataLoader(TensorDataset(x), 40))
        with torch.no_grad():
            error = self.decoder(self.encoder(x)[:, :4]) - x
        return float(error.norm() / (x - x.mean(dim=0)).norm())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_variance_that_nothing_bounds_is_named_at_the_first_step_and_the_run_is_saved(seed: int) -> None:
    guard = GradientGuard()
    bare, guarded = Autoencoder(seed).reconstruction_error(), Autoencoder(seed).reconstruction_error(guard)
    alert = guard.alerts[0]
    assert alert.step == 0
    assert alert.cause == "unbounded exponent"
    assert "`exp` at test_exponent.py" in alert.message
    assert "clamp(max=5)" in alert.advice
    assert guarded < 1.0 < bare or math.isnan(bare)
