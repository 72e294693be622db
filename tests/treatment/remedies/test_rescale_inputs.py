"""Inputs that come in another unit from the middle of a run on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from grad_callbacks import Batch, GradientGuard, RescaleInputs, RunState
from grad_callbacks.events import Evidence
from tests.support.helpers import SGD, Regression, batches, fit, mlp, pending, trainer

Make = Callable[[Any], torch.optim.Optimizer]


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return SGD(parameters, lr=0.02, momentum=0.9)


class Units(Regression):
    """Batches made from the number of the step, whose inputs are multiplied with ``factor(step)``."""

    def __init__(self, factor: Callable[[int], float], model: nn.Module | None = None, make: Make = momentum) -> None:
        torch.manual_seed(0)
        super().__init__(model or mlp(4, 16, 16, 2), make)
        self.factor = factor
        self.losses: list[float] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(self.global_step))
        batch[1].set_(inputs[:, :2].clone())
        batch[0].set_(inputs * self.factor(self.global_step))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        assert loss is not None
        self.losses.append(float(loss.detach()))
        return loss


def since(step: int, factor: float) -> Callable[[int], float]:
    return lambda number: factor if number >= step else 1.0


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) for m in module.modules())


OPTIMIZERS: dict[str, Make] = {"momentum": momentum, "adam": lambda p: torch.optim.Adam(p, lr=0.01)}


@pytest.mark.numerics
@pytest.mark.parametrize("factor", [50.0, pytest.param(1e3, marks=pytest.mark.slow), 1e5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_on_learning_as_if_nothing_had_changed(name: str, factor: float) -> None:
    make = OPTIMIZERS[name]
    module, plain, guard = Units(since(70, factor), make=make), Units(since(70, 1.0), make=make), GradientGuard()
    fit(module, guard, data=batches(150))
    fit(plain, data=batches(150))
    [made] = guard.interventions
    assert made.remedy == "RescaleInputs"
    assert made.detail["modules"] == "model"
    assert made.detail["divisor"] == pytest.approx(factor, rel=0.3)
    assert made.detail["steps"] == 150 - made.step
    assert sum(module.losses[-10:]) < 3 * sum(plain.losses[-10:])
    assert sum(module.losses[-10:]) < 0.1 * sum(module.losses[:10])
    assert hooks(module) == 0, "the hooks are gone"


@pytest.mark.numerics
def test_an_autoencoder_gets_the_batch_itself_divided() -> None:
    class Autoencoder(Units):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step([batch[0], batch[0]], batch_idx)

    module, guard = Autoencoder(since(70, 1e3), mlp(4, 16, 16, 4)), GradientGuard()
    fit(module, guard, data=batches(150))
    assert [made.remedy for made in guard.interventions] == ["RescaleInputs"]
    assert sum(module.losses[-10:]) < 0.3 * sum(module.losses[:10])


def test_batches_that_are_wrong_in_more_than_their_unit_are_for_other_remedies() -> None:
    class Mixed(Units):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(batch, batch_idx)
            if self.global_step >= 70:
                batch[1].mul_(-10.0)

    module, guard = Mixed(since(70, 1e3)), GradientGuard({"exploding": ["RescaleInputs"]})
    fit(module, guard, data=batches(72))
    assert guard.alerts
    assert guard.interventions == []
    assert hooks(module) == 0


def test_wild_entries_are_no_other_unit() -> None:
    class Wild(Units):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(batch, batch_idx)
            if self.global_step >= 70:
                batch[0][0, 0] = 9999.0

    module, guard = Wild(since(70, 1.0)), GradientGuard({"exploding": ["RescaleInputs"]})
    fit(module, guard, data=batches(80))
    assert guard.alerts
    assert guard.interventions == []


@pytest.mark.numerics
def test_what_is_in_the_old_unit_is_left_as_it_is() -> None:
    """As validation data may be, and every other batch here."""
    module, guard = Units(lambda step: 1e3 if step >= 70 and step % 2 else 1.0), GradientGuard()
    fit(module, guard, data=batches(150))
    [made] = guard.interventions
    assert (made.remedy, made.step) == ("RescaleInputs", 71)
    assert made.detail["steps"] == 40, "every other batch is divided"
    assert sum(module.losses[-10:]) < 0.1 * sum(module.losses[:10])


@pytest.mark.parametrize("factor", [lambda step: 1.0, lambda step: math.sqrt(10) ** (step % 3 - 1)])
def test_a_healthy_run_is_left_alone_to_the_bit(factor: Callable[[int], float]) -> None:
    guarded, plain, guard = Units(factor), Units(factor), GradientGuard()
    fit(guarded, guard, data=batches(100))
    fit(plain, data=batches(100))
    assert guard.interventions == []
    assert all(torch.equal(a, b) for a, b in zip(guarded.parameters(), plain.parameters(), strict=True))


def test_a_wrong_unit_from_the_first_step_on_cannot_be_told() -> None:
    module, guard = Units(since(0, 1e3)), GradientGuard()
    fit(module, guard, data=batches(40))
    assert guard.alerts
    assert "RescaleInputs" not in [made.remedy for made in guard.interventions]


@pytest.mark.parametrize("stop", [71, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (68, 75, 100))])
def test_resumed_it_goes_on_dividing(stop: int, tmp_path: Path) -> None:
    whole, untouched = GradientGuard(), Units(since(70, 100.0))
    fit(untouched, whole, data=batches(120))
    assert [made.remedy for made in whole.interventions] == ["RescaleInputs"]
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=stop)
    options = {"enable_checkpointing": True, "max_steps": stop}
    fit(Units(since(70, 100.0)), GradientGuard(), saver, data=batches(120), **options)
    [checkpoint] = tmp_path.glob("*.ckpt")
    resumed, continued = GradientGuard(), Units(since(70, 100.0))
    trainer(resumed).fit(continued, batches(120), ckpt_path=checkpoint, weights_only=True)
    assert resumed.interventions == whole.interventions
    for a, b in zip(continued.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.numerics
def test_on_an_accelerator_the_step_that_was_taken_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: True)
    fused = Units(since(70, 1e3), make=lambda p: torch.optim.AdamW(p, lr=0.01, fused=True))
    guard = GradientGuard({"exploding": ["RescaleInputs"]})
    fit(fused, guard, data=batches(150))
    [made] = guard.interventions
    assert made.detail["to_step"] < 70
    assert sum(fused.losses[-10:]) < 0.1 * sum(fused.losses[:10])


def test_statistics_that_have_seen_the_large_inputs_are_put_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 2))
    skip = nn.Linear(4, 2)

    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.skip = model, skip

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x) + self.skip(x)  # type: ignore[no-any-return]

    module, guard = Units(since(70, 1e4), Skipping()), GradientGuard()
    fit(module, guard, data=batches(100))
    assert [made.remedy for made in guard.interventions] == ["RescaleInputs"]
    assert "to_step" in guard.interventions[0].detail
    assert float(model[3].running_var.max()) < 100


class Spiked(Units):
    """The loss of one step is multiplied."""

    def __init__(self, spike: int) -> None:
        super().__init__(since(70, 100.0))
        self.spike = spike

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1e4 if batch_idx == self.spike else 1.0)


def test_what_is_seen_needs_no_trial_and_a_later_trial_goes_on_dividing() -> None:
    module, guard = Spiked(100), GradientGuard({"exploding": ["RescaleInputs", "ClipNorm"]}, trial=True)
    fit(module, guard, data=batches(140))
    [trial] = guard.trials
    assert trial.step == 100
    assert all(score < 0.1 * module.losses[0] for name, score in trial.scores.items() if name != "none")
    assert guard.interventions[0].remedy == "RescaleInputs"
    assert guard.interventions[0].detail["steps"] == 140 - guard.interventions[0].step
    assert hooks(module) == 0


def test_clipping_for_an_earlier_spike_does_not_hide_it() -> None:
    module, guard = Spiked(40), GradientGuard()
    fit(module, guard, data=batches(100))
    assert [(made.step, made.remedy) for made in guard.interventions] == [(40, "ClipNorm"), (70, "RescaleInputs")]


class Scaled(nn.Module):
    """Takes its input by name; what it is given is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2, bias=False)  # a loss that grows with its input
        self.given: list[Tensor] = []

    def forward(self, first: Tensor, *, inputs: Tensor) -> Tensor:
        self.given.append(inputs)
        return self.linear(inputs) + first  # type: ignore[no-any-return]


@settings(max_examples=40, deadline=None)
@given(
    factor=st.floats(31, 1e9),
    size=st.floats(1e-3, 1e3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_what_is_divided_has_its_usual_size(factor: float, size: float, dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    usual = (size * torch.randn(64, 4, generator=generator)).to(dtype)
    large = (usual.double() * factor).to(dtype)
    model, remedy = Scaled().to(dtype), RescaleInputs()

    def loss(inputs: Tensor) -> Tensor:
        return model(torch.zeros(64, 2, dtype=dtype), inputs=inputs).square().mean()  # type: ignore[no-any-return]

    loss(large).backward()  # type: ignore[no-untyped-call]
    step = pending(model)
    for reading in (1, 2, 4):
        step.run_state = RunState(model, Batch(usual, 0, lambda: loss(usual)), readings=reading)
        remedy.note(step, is_well=True)
    step.run_state = RunState(model, Batch({"x": large}, 0, lambda: loss(large)), readings=5)
    detail = remedy.engage(step, Evidence({}))
    assert detail is not None
    assert detail["divisor"] == pytest.approx(factor, rel=0.02)
    assert step.is_skipped is False
    assert remedy.act(step) is True
    assert step.is_skipped
    loss(large)
    assert model.given[-1].dtype == dtype
    torch.testing.assert_close(model.given[-1].double(), usual.double(), rtol=0.02, atol=0.02 * size)
    loss(usual)
    assert torch.equal(model.given[-1], usual), "the old unit is left alone to the bit"
    assert copy.deepcopy(remedy)._handles == []
    assert remedy.engage(step, Evidence({})) is None, "that is known already"
    remedy.detach()
    loss(large)
    assert torch.equal(model.given[-1], large)
