"""A remedy that treats each unit for itself: AGC."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grad_callbacks import AGC
from grad_callbacks.events import Evidence
from tests.support.helpers import mlp, pending


def network(scale: float = 1.0, seed: int = 0, faint: float = 1.0) -> nn.Sequential:
    """Two convolutions and two linear layers with gradients, those of the first two ``faint`` times as large."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2)
    )
    for index, layer in enumerate(m for m in model if isinstance(m, nn.Conv2d | nn.Linear)):
        for p in layer.parameters():
            p.grad = scale * (faint if index < 2 else 1.0) * torch.randn_like(p)
    return model


def treated(remedy: Any, model: nn.Module, **options: Any) -> Any:
    step = pending(model, **options)
    remedy.engage(step, Evidence({}))
    return step, remedy.act(step)


def rows(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.flatten(1) if tensor.dim() > 1 else tensor[None]).double().norm(dim=1)


def directions_are_kept(before: list[torch.Tensor], model: nn.Module) -> bool:
    return all(
        float((old.double() / old.norm() * p.grad.double() / p.grad.norm()).sum()) > 1 - 1e-5
        for old, p in zip(before, model.parameters(), strict=True)
    )


# AGC


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(1e-4, 1e4), ratio=st.floats(1e-3, 1.0), seed=st.integers(0, 99), loss_scale=st.sampled_from([1, 64])
)
def test_no_unit_but_the_heads_exceeds_its_bound(scale: float, ratio: float, seed: int, loss_scale: float) -> None:
    model = network(scale * loss_scale, seed)
    before = [p.grad.clone() for p in model.parameters()]
    step, _ = treated(AGC(ratio), model, loss_scale=loss_scale)
    for (name, p), old in zip(model.named_parameters(), before, strict=True):
        bound = ratio * rows(p.detach()).clamp(min=1e-3) * loss_scale
        expected = rows(old) if name.startswith("5.") else torch.minimum(rows(old), bound)
        torch.testing.assert_close(rows(p.grad), expected, rtol=1e-4, atol=0)
    after = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters())) / loss_scale
    assert step.norm == pytest.approx(after, rel=1e-5)


def test_clipping_units_twice_changes_nothing() -> None:
    model, remedy = network(100.0), AGC()
    treated(remedy, model)
    once = [p.grad.clone() for p in model.parameters()]
    remedy.act(pending(model))
    torch.testing.assert_close([p.grad for p in model.parameters()], once, rtol=1e-5, atol=0)


def test_units_at_zero_can_still_move_and_non_finite_ones_are_left_alone() -> None:
    model, remedy = network(), AGC()
    treated(remedy, model)
    with torch.no_grad():
        model[0].weight.zero_()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model[2].weight.grad[1] = math.inf
    remedy.act(pending(model))
    torch.testing.assert_close(rows(model[0].weight.grad), torch.full((3,), 1e-5).double())
    assert model[2].weight.grad[1].isinf().all()
    assert rows(model[2].weight.grad)[0] < 0.01


def test_sparse_and_missing_gradients_are_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 4), nn.Linear(4, 2))
    (1e3 * model(torch.tensor([1, 1, 2]))).sum().backward()
    model[1].bias.grad = None
    before = model[0].weight.grad.to_dense()
    assert treated(AGC(), model)[1]
    torch.testing.assert_close(model[0].weight.grad.to_dense(), before)
    assert rows(model[1].weight.grad).max() < 0.1


def test_weights_that_are_cut_across_their_rows_are_refused_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("grad_callbacks.treatment.remedies.agc._has_whole_rows", lambda layers: False)
    caplog.set_level("WARNING", logger="grad_callbacks")
    remedy = AGC()
    assert remedy.engage(pending(network()), Evidence({})) is remedy.engage(pending(network()), Evidence({})) is None
    [told] = caplog.messages
    assert "whole rows" in told
    assert not remedy.act(pending(network()))


def test_it_acts_on_what_earlier_remedies_have_left() -> None:
    whole, late = network(10.0, faint=1e-3), network(10.0, faint=1e-3)
    for model, on_device in ((whole, False), (late, True)):
        step, remedy = pending(model, on_device=on_device), AGC()
        remedy.engage(step, Evidence({}))
        step.limit_norm(1.0)
        remedy.act(step)
        step.limit_norm(0.5)
        step.commit()
        assert step.norm == pytest.approx(
            math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters())), rel=1e-5
        )
    for a, b in zip(whole.parameters(), late.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_it_can_be_withdrawn_and_switched_on_again() -> None:
    remedy = AGC()
    assert treated(remedy, network(10.0, faint=1e-3))[1]
    assert remedy.release(pending(network()))
    assert not remedy.release(pending(network()))
    assert not remedy.act(pending(network(10.0, faint=1e-3)))
    assert treated(remedy, network(10.0, faint=1e-3))[1]


def test_it_comes_too_late_for_a_step_that_was_taken() -> None:
    model, remedy = network(10.0, faint=1e-3), AGC()
    step = pending(model)
    before = [p.grad.clone() for p in model.parameters()]
    remedy.engage(step, Evidence({}))
    step.after()
    assert not remedy.act(step)
    torch.testing.assert_close([p.grad for p in model.parameters()], before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("ratio", 0), ("least", -1.0)],
)
def test_a_wrong_argument_is_named(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{argument} must .*{value!r}"):
        AGC(**{argument: value})  # type: ignore[arg-type]


def test_a_small_mlp_is_not_changed_where_nothing_is_due() -> None:
    model = mlp(3, 4, 2)
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e-9)
    before = [p.grad.clone() for p in model.parameters()]
    assert not treated(AGC(), model)[1]
    torch.testing.assert_close([p.grad for p in model.parameters()], before, rtol=0, atol=0)
