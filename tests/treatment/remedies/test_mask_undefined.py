"""A loss whose derivative is undefined in every batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from grad_callbacks import GradientGuard, MaskUndefined
from grad_callbacks.treatment.remedies._support.undefined_operations import undefined_operations
from tests.support.helpers import SGD, Prepared, Regression, batches, fit, mlp, trainer

Term = Callable[[Tensor], Tensor]


def distances(outputs: Tensor) -> Tensor:
    return (outputs[:, None] - outputs[None]).square().sum(2)


TERMS: dict[str, tuple[Term, str]] = {
    "root of zero": (lambda y: distances(y).sqrt().mean(), "SqrtBackward0"),
    "log of zero": (lambda y: distances(y).log().mean(), "LogBackward0"),
    "mean of nothing": (lambda y: (0 * y).sum() / (0 * y).detach().sum(), "DivBackward0"),
}


class Broken(Regression):
    """From step 20 on a term of the loss is undefined."""

    def __init__(self, term: Term, since: int = 20, of_inputs: bool = False) -> None:
        torch.manual_seed(0)
        super().__init__(mlp(4, 16, 16, 2), lambda p: torch.optim.Adam(p, lr=0.01))
        self.term, self.since, self.of_inputs = term, since, of_inputs
        self.errors: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        if self.of_inputs and self.global_step >= self.since:
            inputs = self.term(inputs)
        outputs = self.model(inputs)
        loss = nn.functional.mse_loss(outputs, targets)
        self.errors.append(float(loss.detach()))
        if self.global_step < self.since or self.of_inputs:
            return loss
        return loss + 0.001 * self.term(outputs)


@pytest.mark.numerics
@pytest.mark.parametrize("name", TERMS)
def test_what_is_left_of_the_loss_is_learned(name: str) -> None:
    term, operation = TERMS[name]
    module, guard = Broken(term), GradientGuard()
    fit(module, guard, data=batches(120))
    [made] = guard.interventions
    assert (made.step, made.remedy, made.detail["operations"]) == (20, "MaskUndefined", operation)
    assert made.detail["steps"] == 100
    assert sum(module.errors[-10:]) < 0.2 * sum(module.errors[20:30])


@pytest.mark.numerics
@pytest.mark.parametrize("make", [partial(SGD, lr=0.1), partial(torch.optim.AdamW, lr=0.01, fused=True)])
def test_without_skipping_no_weight_is_lost_on_an_accelerator_either(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grad_callbacks.engine.engine.arrives_later", lambda device: True)
    module, guard = Broken(TERMS["root of zero"][0]), GradientGuard({"nonfinite": ["MaskUndefined"]})
    module.make_optimizer = make
    fit(module, guard, data=batches(120))
    assert [(made.step, made.remedy) for made in guard.interventions] == [(20, "MaskUndefined")]
    assert sum(module.errors[-10:]) < 0.2 * sum(module.errors[20:30])


def test_what_is_finite_is_left_alone_to_the_bit() -> None:
    def weights(*callbacks: Any) -> list[Tensor]:
        module = Broken(lambda y: (y.square() + 1).sqrt().mean())
        fit(module, *callbacks, data=batches(60))
        return [*module.parameters()]

    def mask(remedy: MaskUndefined, model: nn.Module) -> None:
        remedy.operations = ["SqrtBackward0"]

    guard = GradientGuard()
    assert all(torch.equal(a, b) for a, b in zip(weights(Prepared(MaskUndefined, mask)), weights(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(guard), weights(), strict=True))
    assert guard.interventions == []


def test_a_forward_pass_that_is_not_finite_is_skipped() -> None:
    module, guard = Broken(lambda x: x.sqrt(), of_inputs=True), GradientGuard()
    fit(module, guard, data=batches(60))
    assert "MaskUndefined" not in [made.remedy for made in guard.interventions]
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())


def test_nothing_is_masked_where_the_whole_loss_is_undefined() -> None:
    model = nn.Linear(2, 1)

    def replay() -> Tensor:
        return (0 * model(torch.ones(3, 2))).sqrt().mean()

    assert undefined_operations(model, replay) is None
    assert undefined_operations(model, None) is None
    assert undefined_operations(model, lambda: model(torch.ones(3, 2)).square().mean()) == []


def test_other_bad_batches_are_skipped_meanwhile() -> None:
    class Twice(Broken):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            bad = self.global_step == 30
            return super().training_step([batch[0] * (torch.nan if bad else 1.0), batch[1]], batch_idx)

    module, guard = Twice(TERMS["root of zero"][0]), GradientGuard()
    fit(module, guard, data=batches(60))
    assert [made.remedy for made in guard.interventions] == ["MaskUndefined"]
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())


def test_resumed_it_goes_on_masking(tmp_path: Path) -> None:
    class Stream(Broken):
        """Makes the batch of a step from the step's number."""

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(self.global_step))
            return super().training_step([inputs, inputs[:, :2]], batch_idx)

    term, _ = TERMS["root of zero"]
    whole, untouched = GradientGuard(), Stream(term)
    fit(untouched, whole, data=batches(60))
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=40)
    fit(Stream(term), GradientGuard(), saver, data=batches(60), enable_checkpointing=True, max_steps=40)
    [checkpoint] = tmp_path.glob("*.ckpt")
    resumed, continued = GradientGuard(), Stream(term)
    trainer(resumed).fit(continued, batches(60), ckpt_path=checkpoint, weights_only=True)
    assert resumed.interventions == whole.interventions
    for a, b in zip(continued.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
