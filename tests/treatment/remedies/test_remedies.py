"""What each remedy does to one optimizer step."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grad_callbacks import Alert, ClipNorm, ClipValue, ReduceLR, Remedy, RunState, SkipStep
from grad_callbacks.events import Evidence, Severity
from grad_callbacks.treatment.remedies import REMEDIES
from tests.support.helpers import mlp, pending

NEED_A_SCENE = (
    *("Rollback", "Reinitialize", "Warmup", "MaskUndefined", "RescaleInputs", "StandardizeInputs", "FullPrecision"),
    "AdaptiveStep",
)


def with_gradients(scale: float = 1.0, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = mlp(3, 5, 2)
    for index, p in enumerate(model.parameters()):
        p.grad = scale * torch.randn_like(p) * (1e-3 if index < 2 else 1.0)  # the first layer's lag behind
    return model


def norm(model: nn.Module) -> float:
    return float(torch.cat([p.grad.flatten() for p in model.parameters()]).double().norm())


@settings(max_examples=50, deadline=None)
@given(scale=st.floats(1e-6, 1e6), limit=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_after_clipping_the_norm_is_the_threshold_and_the_direction_is_kept(
    scale: float, limit: float, seed: int
) -> None:
    model = with_gradients(scale, seed)
    before = [p.grad.clone() for p in model.parameters()]
    step, remedy = pending(model), ClipNorm(limit)
    remedy.engage(step, Evidence({}))
    remedy.act(step)
    expected = min(step.reading.norm, limit)
    assert norm(model) == pytest.approx(expected, rel=1e-5)
    assert step.norm == pytest.approx(norm(model), rel=1e-5), "norm x coefficient is the norm of a second pass"
    for p, gradient in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, gradient * (step.norm / step.reading.norm))


def test_clipping_agrees_with_torch() -> None:
    ours, theirs = with_gradients(10.0), with_gradients(10.0)
    step, remedy = pending(ours), ClipNorm(1.0)
    remedy.engage(step, Evidence({}))
    assert remedy.act(step)
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_clipping_twice_changes_nothing() -> None:
    model = with_gradients(10.0)
    step, remedy = pending(model), ClipNorm(1.0)
    remedy.engage(step, Evidence({}))
    remedy.act(step)
    assert not remedy.act(pending(model)) or norm(model) == pytest.approx(1.0, rel=1e-6)


def test_clipping_is_off_until_it_is_switched_on() -> None:
    model = with_gradients(10.0)
    before = norm(model)
    assert not ClipNorm(1.0).act(pending(model))
    assert not ClipValue(1.0).act(pending(model))
    assert not SkipStep().act(pending(model))
    assert norm(model) == before


def test_the_default_threshold_is_twice_the_usual_norm() -> None:
    step, remedy = pending(with_gradients(10.0)), ClipNorm()
    told = remedy.engage(step, Evidence({"reference": 3.0}))
    assert told == {"max_norm": 6.0, "norm": step.reading.norm}
    assert remedy.engage(step, Evidence({"reference": 9.0})) is None, "it is switched on once"
    remedy.act(step)
    assert step.norm == pytest.approx(6.0)


@settings(max_examples=30, deadline=None)
@given(limit=st.floats(1e-3, 10.0), seed=st.integers(0, 99), scale=st.sampled_from([1.0, 1024.0]))
def test_value_clipping_bounds_every_entry(limit: float, seed: int, scale: float) -> None:
    model = with_gradients(scale, seed)
    step, remedy = pending(model, loss_scale=scale), ClipValue(limit)
    remedy.engage(step, Evidence({}))
    remedy.act(step)
    assert max(float(p.grad.abs().max()) for p in model.parameters()) <= limit * scale * (1 + 1e-6)
    assert step.norm == pytest.approx(norm(model) / scale, rel=1e-5)


def test_sparse_gradients_of_repeated_rows_are_clamped_by_their_sum() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    model(torch.tensor([1] * 50)).sum().backward()
    step, remedy = pending(model), ClipValue(1.0)
    remedy.engage(step, Evidence({}))
    assert remedy.act(step)
    assert float(model.weight.grad.to_dense().abs().max()) == 1.0
    assert step.norm == pytest.approx(float(model.weight.grad.to_dense().norm())) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    ],
)
def test_a_skipped_step_is_an_exact_no_op(make) -> None:  # type: ignore[no-untyped-def]
    model = with_gradients()
    optimizer = make(model.parameters())
    optimizer.step()
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    step, remedy = pending(model, optimizer), SkipStep()
    remedy.engage(step, Evidence({}))
    assert remedy.act(step)
    optimizer.step()
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state_dict()["state"], state["state"], rtol=0, atol=0)


def test_after_an_alert_every_non_finite_step_is_skipped_and_no_other() -> None:
    remedy = SkipStep()
    remedy.engage(pending(with_gradients()), Evidence({}))
    assert remedy.act(pending(with_gradients())), "the alert's own step"
    assert not remedy.act(pending(with_gradients()))
    assert remedy.act(pending(with_gradients(math.nan)))


def test_the_rate_is_lowered_at_each_alert_down_to_the_floor() -> None:
    step, remedy = pending(with_gradients()), ReduceLR(0.1, floor=1e-3)
    scales = [(detail or {}).get("lr_scale") for detail in (remedy.engage(step, Evidence({})) for _ in range(5))]
    assert scales == [pytest.approx(0.1), pytest.approx(0.01), pytest.approx(0.001), None, None]
    assert step.learning_rate.effective() == [pytest.approx(1e-4)]


@pytest.mark.parametrize(
    ("remedy", "argument", "value"),
    [
        *[(ClipNorm, "max_norm", value) for value in (0, -1.0, math.nan, math.inf, "1", True)],
        *[(ClipValue, "max_value", value) for value in (0, -1.0, math.nan)],
        *[(ReduceLR, "factor", value) for value in (0, 1, -0.5, 1.5, math.nan, "0.1")],
        *[(ReduceLR, "floor", value) for value in (0, 1, -0.5)],
    ],
)
def test_a_wrong_argument_is_named_with_its_value(remedy: type, argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{argument} must .*{value!r}"):
        remedy(**{argument: value})


@pytest.mark.parametrize("name", REMEDIES)
def test_before_it_is_switched_on_a_remedy_changes_nothing_and_its_state_fits_into_a_checkpoint(
    name: str, tmp_path: Path
) -> None:
    remedy, model = REMEDIES[name](), with_gradients(10.0)
    before = [p.grad.clone() for p in model.parameters()]
    step = pending(model)
    assert not remedy.act(step)
    assert not step.is_skipped
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), before, strict=True))
    torch.save(remedy.state_dict(), tmp_path / "state.pt")
    other = REMEDIES[name]()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert not other.act(pending(model))


@pytest.mark.parametrize("name", [name for name in REMEDIES if name not in NEED_A_SCENE])
def test_every_remedy_follows_the_protocol_and_resumes(name: str) -> None:
    first, second = REMEDIES[name](), REMEDIES[name]()
    assert isinstance(first, Remedy)
    step = pending(with_gradients(10.0))
    assert first.engage(step, Evidence({"reference": 1.0})) is not None
    first.act(step)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    models = [with_gradients(math.nan if name == "SkipStep" else 10.0) for _ in range(2)]
    acted = [remedy.act(pending(model)) for remedy, model in zip((first, second), models, strict=True)]
    assert [bool(did) for did in acted] == [True, True]
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    ("severity", "cause", "told", "max_norm"),
    [
        ("warning", "bad batch", {"batch_scale_ratio": 30.0}, 6.0),
        ("warning", "learning rate too high", {"batch_scale_ratio": 1.0}, 6.0),
    ],
)
def test_the_threshold_is_the_same_whatever_the_cause(
    severity: Severity, cause: str, told: dict[str, float], max_norm: float
) -> None:
    model = with_gradients(20.0)
    step, remedy = pending(model, torch.optim.Adam(model.parameters())), ClipNorm()
    step.run_state = RunState(model, alert=Alert("exploding", severity, 0, (), "", told, cause, ""))
    detail = remedy.engage(step, Evidence({"reference": 3.0, **told}))
    assert detail == {"max_norm": max_norm, "norm": step.reading.norm}
