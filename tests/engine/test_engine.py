"""The engine in a plain loop: what a user without Lightning writes."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import Tensor, nn

from experiments.bench.rules import FromTheStart
from grad_callbacks import ClipNorm, Engine, Prescription, Record, ReduceLR, SkipStep
from tests.support.helpers import SGD, Backwards, mlp
from tests.support.plain_loop import STEPS, guarded, train


def test_a_plain_loop_gets_the_record_of_the_run() -> None:
    engine = guarded(plan={"nonfinite": [SkipStep()]})
    outlooks = train(engine, factors={9: math.nan})
    engine.close()
    record = engine.record
    assert [outlook.reading.step for outlook in outlooks] == list(range(STEPS))
    assert (record.verdict, record.outcome) == ("nonfinite", "repaired")
    assert [(made.step, made.remedy) for made in record.interventions] == [(9, "SkipStep")]
    assert len(record.history()) == 3 * STEPS
    assert record.report().startswith("# Gradients: nonfinite, repaired")


def test_the_loss_shows_the_order_of_the_layers() -> None:
    torch.manual_seed(0)
    model = Backwards()
    engine = Engine(model, SGD(model.parameters(), lr=0.1))
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    engine.before_step(loss=loss)
    assert list(engine.record.history()["layer"]) == ["first", "attention", "attention.out_proj", "last"]


def test_a_loss_that_is_told_now_and_then_is_not_lost_in_between() -> None:
    engine = guarded(plan="full")
    for step in range(60):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        loss = nn.functional.mse_loss(engine.model(inputs), inputs[:, :2])
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss if step % 20 == 0 else None)
        engine.optimizer.step()
    assert not engine.record.alerts


def test_two_optimizers_share_a_record() -> None:
    record, model = Record(), mlp(4, 8, 2)
    engines = [Engine(model, SGD(model[i].parameters(), lr=0.1), record=record, index=i) for i in (0, 2)]
    model(torch.ones(1, 4)).sum().backward()
    for engine in engines:
        engine.before_step()
    assert list(record.history()["layer"]) == ["0", "2"]


def test_after_closing_the_optimizer_is_the_users_again() -> None:
    engine = guarded(plan={"exploding": [ReduceLR(0.1)]}, lr=0.01)
    engine.rules.insert(0, FromTheStart())
    train(engine, steps=3)
    engine.optimizer.register_step_pre_hook(lambda *_: rates.append(engine.optimizer.param_groups[0]["lr"]))
    rates: list[float] = []
    engine.optimizer.step()
    engine.close()
    engine.optimizer.step()
    assert rates == pytest.approx([0.001, 0.01]), "lowered while the engine is there, and only then"
    engine.optimizer._optimizer_step_pre_hooks.popitem()  # the test's own
    assert not engine.optimizer._optimizer_step_pre_hooks
    assert not engine.optimizer._optimizer_step_post_hooks


@pytest.mark.numerics
def test_a_line_search_is_read_once_a_step_and_never_clipped(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp(4, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    prescription = Prescription({"exploding": [ClipNorm(1e-6)]})
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        engine = Engine(model, optimizer, rules=[FromTheStart()], prescription=prescription)
    assert "line search of LBFGS" in caplog.text
    inputs = torch.randn(8, 4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2])
        loss.backward()
        engine.before_step(loss=loss)
        return loss

    losses = [float(optimizer.step(closure)) for _ in range(4)]
    assert sorted(set(engine.record.history()["step"])) == [0, 1, 2, 3]
    assert engine.record.interventions == []
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_loss_scaler_is_taken_into_account(fused: bool, unscaled: bool) -> None:
    torch.manual_seed(0)
    model = mlp(4, 8, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=fused)
    engine = Engine(model, optimizer, rules=[FromTheStart()], prescription=Prescription({"exploding": [ClipNorm(1e9)]}))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inputs = torch.randn(8, 4)
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), inputs[:, :2])
        scaler.scale(loss).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        outlook = engine.before_step(loss=loss, scaler=scaler)
        scaler.step(optimizer)
        scaler.update()
        expected = torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    nn.functional.mse_loss(model(inputs), inputs[:, :2]), list(model.parameters())
                )
            ]
        ).norm()
        assert outlook is not None
        assert outlook.reading.norm == pytest.approx(float(expected), rel=1e-5)


def test_an_overflow_is_left_to_the_loss_scaler() -> None:
    engine = guarded(plan={"nonfinite": [SkipStep()]})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        engine.optimizer.zero_grad()
        loss = engine.model(torch.ones(1, 4)).sum()
        (scaler.scale(loss) * math.inf).backward()
        engine.before_step(loss=loss, scaler=scaler)
        scaler.step(engine.optimizer)
        scaler.update()
    assert engine.record.verdict == "healthy"
    assert scaler.get_scale() == 128.0
