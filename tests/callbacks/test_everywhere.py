"""Right everywhere: each precision, optimizer and kind of parameter, on real Trainers, against float64 brute force.

For every case the norms are the true ones, what is clipped has the norm that is reported, and a step with a NaN loss is
an exact no-op. The sharded rows of the table are in tests/distributed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from experiments.bench.rules import FromTheStart
from grad_callbacks import ClipNorm, GradientGuard, SkipStep, StepResult
from tests.support.helpers import Regression, batches, fit, mlp

BAD_BATCH = 13
AdamW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
Momentum = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)


class Odd(nn.Module):
    """Frozen, unused, tied, sparse, complex and zero-sized parameters in one model; registered out of order."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.tied = nn.Linear(4, 4, bias=False)
        self.first = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.first.weight
        self.table = nn.Embedding(16, 4, sparse=sparse)
        self.spectrum = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.unused = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.table((x[:, :2].nan_to_num().abs() * 5).long().clamp(max=15)).sum(1)  # a row may come up twice
        x = self.tied(torch.tanh(self.first(self.frozen(x)))) + rows
        x = x * torch.fft.ifft(torch.fft.fft(torch.ones(4)) * self.spectrum).abs() + self.empty.sum()
        return self.head(x)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.reshape(-1, 2, 2))[0][:, -1])  # type: ignore[no-any-return]


class Poisonable(Regression):
    """A regression whose loss is NaN on one batch."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if batch_idx == BAD_BATCH else loss


class Adversarial(LightningModule):
    """Two optimizers in manual optimization, in turns as in a GAN; each loss reaches the other's parameters too."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer] = Momentum) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.critic, self.generator, self.make = mlp(2, 8, 1), mlp(4, 8, 2), make

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        inputs, targets = batch
        factor = math.nan if batch_idx == BAD_BATCH else 1.0
        critic, generator = self.optimizers()
        self.toggle_optimizer(critic)
        loss = self.critic(self.generator(inputs)).mean() - self.critic(targets).mean()
        self._step(critic, loss * factor)
        self.untoggle_optimizer(critic)
        if batch_idx % 3 == 0 or factor != 1.0:  # the generator moves every third time
            self._step(generator, -self.critic(self.generator(inputs)).mean() * factor)

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return [self.make(self.critic.parameters()), self.make(self.generator.parameters())]


def regression(
    model: Callable[[], nn.Module] = lambda: mlp(4, 8, 8, 2), make: Callable[..., torch.optim.Optimizer] = Momentum
) -> Callable[[], LightningModule]:
    return lambda: Poisonable(model(), make)


plain = regression()


def scaled() -> dict[str, Any]:
    """16-mixed, with a loss scaler that works on the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return {"plugins": [MixedPrecision("16-mixed", device="cpu", scaler=scaler)]}


@dataclass(frozen=True)
class Case:
    """A training and how exactly its norms can be known."""

    module: Callable[[], LightningModule] = plain
    options: Callable[[], dict[str, Any]] = dict
    tolerance: float = 1e-5
    max_norm: float = 0.1


fused = partial(AdamW, fused=True)
CASES = {
    "float32": Case(),
    "float64": Case(options=lambda: {"precision": "64-true"}),
    "bf16-mixed": Case(options=lambda: {"precision": "bf16-mixed"}),
    "bf16-true": Case(options=lambda: {"precision": "bf16-true"}, tolerance=1e-3),
    "16-mixed": Case(options=scaled),
    "fused float32": Case(regression(make=fused)),
    "fused SGD": Case(regression(make=partial(Momentum, fused=True))),
    "fused bf16-mixed": Case(regression(make=fused), lambda: {"precision": "bf16-mixed"}),
    "fused bf16-true": Case(regression(make=fused), lambda: {"precision": "bf16-true"}, tolerance=1e-3),
    "fused 16-mixed": Case(regression(make=fused), scaled),
    "Adam, foreach": Case(regression(make=partial(AdamW, foreach=True))),
    "learning rate in a tensor": Case(regression(make=partial(torch.optim.AdamW, lr=torch.tensor(1e-3), fused=True))),
    "accumulation, short last window": Case(options=lambda: {"accumulate_grad_batches": 5, "max_epochs": 2}),
    "odd parameters": Case(regression(Odd, partial(torch.optim.SGD, lr=1e-3))),
    "odd parameters, fused": Case(regression(partial(Odd, sparse=False), partial(Momentum, fused=False))),
    "channels last": Case(
        regression(
            lambda: nn.Sequential(
                nn.Unflatten(1, (1, 2, 2)),
                nn.Conv2d(1, 4, 2).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
                nn.Flatten(),
                nn.Linear(4, 2),
            )
        )
    ),
    "recurrent": Case(regression(Recurrent)),
    "compiled": Case(regression(lambda: torch.compile(mlp(4, 8, 2), backend="aot_eager"))),  # type: ignore[arg-type,return-value]
    "compiled module": Case(lambda: torch.compile(regression()(), backend="aot_eager")),  # type: ignore[arg-type,return-value]
    "two optimizers in turns": Case(Adversarial),
    "two fused optimizers in turns": Case(lambda: Adversarial(fused)),
    "two optimizers, 16-mixed": Case(Adversarial, scaled),
}


class Truth(Callback):
    """The norm of the gradients as they are at this place in the order of callbacks, by brute force in float64."""

    def __init__(self) -> None:
        self.norms: dict[int, float] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # A fused optimizer's gradients still carry the loss scale here.
        scale = scaler.get_scale() if scaler is not None and optimizer.param_groups[0]["fused"] else 1.0
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        dense = [g.to_dense() if g.is_sparse else g for g in gradients]
        flat = [torch.view_as_real(g) if g.is_complex() else g for g in dense]
        self.norms[trainer.global_step] = math.sqrt(sum(float((g.double() / scale).square().sum()) for g in flat))


class Witness(Callback):
    """Notes the batches that change weights or optimizer states."""

    def __init__(self) -> None:
        self.changes: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._before = self._state(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        after = self._state(trainer)
        if len(after) != len(self._before) or not all(
            torch.equal(a, b) for a, b in zip(self._before, after, strict=True)
        ):
            self.changes.append(batch_idx)

    def _state(self, trainer: Trainer) -> list[Tensor]:
        tensors: list[Tensor] = []
        for optimizer in trainer.optimizers:
            tensors += [p.detach() for group in optimizer.param_groups for p in group["params"]]
            tensors += [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
        return copy.deepcopy(tensors)


class Guard(GradientGuard):
    """Keeps what it was told of each step."""

    def __init__(self, max_norm: float) -> None:
        super().__init__(
            {"exploding": [ClipNorm(max_norm)], "nonfinite": [SkipStep()]}, rules=[FromTheStart(), "NonFinite"]
        )
        self.outlooks: dict[int, StepResult] = {}

    def _on_step_result(self, trainer: Any, index: int, outlook: StepResult) -> None:
        super()._on_step_result(trainer, index, outlook)
        self.outlooks[outlook.reading.step] = outlook


@pytest.mark.parametrize("name", CASES)
def test_norms_clipping_and_skipping(name: str) -> None:
    case = CASES[name]
    before, guard, after, witness = Truth(), Guard(case.max_norm), Truth(), Witness()
    fit(case.module(), before, guard, after, witness, **case.options())
    finite = {step: outlook for step, outlook in guard.outlooks.items() if outlook.reading.is_finite}
    assert len(guard.outlooks) == len(before.norms)
    assert 0 < len(before.norms) - len(finite) <= 2, "the NaN batch, for each optimizer"
    for step, outlook in finite.items():
        assert outlook.reading.norm == pytest.approx(before.norms[step], rel=case.tolerance)
        layers = np.sqrt(np.sum(outlook.reading.layer_norms**2))
        assert layers == pytest.approx(before.norms[step], rel=case.tolerance)
        # A clipped gradient in bf16 has entries rounded to 8 bits, and a few of them can make up its norm.
        rounded = 2**-8 + 1e-3 if "bf16-true" in name else 1e-5
        assert outlook.norm_clipped == pytest.approx(after.norms[step], rel=rounded), "a real second pass agrees"
        assert outlook.norm_clipped <= case.max_norm * (1 + 1e-6)
    assert any(outlook.coefficient < 1 for outlook in finite.values())
    if "accumulation" not in name:  # there a bad batch spoils its window
        assert BAD_BATCH not in witness.changes
        assert witness.changes, "other steps are taken"
    kinds = [alert.kind for alert in guard.alerts]
    assert ("nonfinite" in kinds) == ("16-mixed" not in name or "bf16" in name), "overflows are the scaler's"


def test_overflows_that_do_not_stop_are_named_as_such() -> None:
    class Endless(Regression):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
            loss = super().training_step(batch, batch_idx)
            assert loss is not None
            return loss * math.inf

    guard = GradientGuard()
    fit(Endless(mlp(4, 8, 2)), guard, **scaled())
    [alert] = guard.alerts
    assert (alert.kind, alert.step) == ("nonfinite", 0), "the loss itself is infinite: no scale will prevent that"
    assert "the first loss is NaN or infinite in 16 bits" in alert.message


def test_a_short_window_is_neither_alarming_nor_mis_scaled() -> None:
    guard = Guard(1e9)
    fit(Regression(mlp(4, 8, 2), partial(torch.optim.SGD, lr=0.0)), guard, accumulate_grad_batches=5, max_epochs=3)
    fills = [outlook.reading.fill for outlook in guard.outlooks.values()]
    assert fills == [*[1.0] * 6, 0.4] * 3, "32 batches are six windows and two fifths"
    norms = [outlook.reading.comparable_norm for outlook in guard.outlooks.values()]
    assert max(norms) < 3 * min(norms)
    assert [alert.kind for alert in guard.alerts] == ["exploding"], "the test's own"


def test_odd_parameters_have_their_layers() -> None:
    guard = Guard(1e9)
    fit(Regression(Odd(), partial(torch.optim.SGD, lr=1e-3)), guard, data=batches(count=3))
    reading = guard.outlooks[0].reading
    present = [name for name, there in zip(reading.layers.names, reading.layer_present, strict=True) if there]
    assert present == ["model.table", "model.tied", "model", "model.head"], "in the order of their use"
