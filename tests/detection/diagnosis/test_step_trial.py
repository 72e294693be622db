from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis.step_trial import StepEvidence, loss_of, try_step
from tests.support.diagnosis_cases import Deep, Run, classes


class Bowl(nn.Module):
    """A loss with a known curvature: ``c x^2 / 2``."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.curvature = curvature

    def forward(self) -> Tensor:
        return self.curvature * self.x.square().sum() / 2


def bowl(curvature: float, lr: float, kind: Any = torch.optim.SGD, **options: Any) -> tuple[Bowl, StepEvidence]:
    model = Bowl(curvature)
    optimizer = kind(model.parameters(), lr=lr, **options)
    model().backward()
    return model, try_step(model, optimizer, model)


@pytest.mark.parametrize(("lr", "overshoots"), [(0.01, False), (0.19, False), (0.25, True), (1.0, True)])
def test_two_over_the_curvature_is_the_limit(lr: float, overshoots: bool) -> None:
    model, found = bowl(10.0, lr)
    assert found.overshoots is overshoots
    assert found.curvature == pytest.approx(10 * lr)
    assert found.before == pytest.approx(15.0)
    assert found.after == pytest.approx(15 * (1 - 10 * lr) ** 2)
    assert torch.equal(model.x, torch.ones(3, dtype=torch.float64))
    if overshoots:
        assert 10 * lr * found.share < 2


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"lr": 0.05}),
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
        (torch.optim.Adam, {"lr": 0.01}),
        (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.0, "betas": (0.8, 0.9)}),
        (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
        (torch.optim.RMSprop, {"lr": 0.01}),
    ],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_the_step_is_the_one_that_is_taken(kind: Any, options: dict[str, Any], steps: int) -> None:
    model = Deep(2, nn.Tanh)
    run = Run(model, optimizer=kind(model.parameters(), **options))
    run.train([classes(step) for step in range(steps)]).stop_at(classes(9))
    case = run.case()
    found = try_step(model, run.optimizer, case.replay)  # type: ignore[arg-type]
    assert found.before == pytest.approx(run.latest)
    run.optimizer.step()
    taken = loss_of(model, case.replay)
    if not options.get("momentum"):
        assert found.after - found.before == pytest.approx(taken - found.before, rel=1e-3)


def test_the_whole_life_of_a_gradient_in_the_momentum_counts() -> None:
    _, alone = bowl(10.0, 0.05)
    _, living = bowl(10.0, 0.05, momentum=0.9)
    assert not alone.overshoots
    assert living.overshoots


@pytest.mark.parametrize("kind", [torch.optim.NAdam, torch.optim.Adagrad])
def test_a_step_that_cannot_be_foretold_is_not(kind: Any) -> None:
    model = Bowl(1.0)
    optimizer = kind(model.parameters(), lr=0.1)
    model().backward()
    assert try_step(model, optimizer, model) == StepEvidence()


def test_without_gradients_or_with_a_broken_replay_nothing_is_known() -> None:
    model = Bowl(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert try_step(model, optimizer, model) == StepEvidence()
    model().backward()

    def fail() -> Tensor:
        raise RuntimeError

    assert try_step(model, optimizer, fail).evidence() == {"step_overshoots": 0.0}


def test_it_costs_at_most_seven_passes() -> None:
    model = Bowl(10.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e9)
    model().backward()
    calls: list[int] = []

    def counted() -> Tensor:
        calls.append(1)
        return model()  # type: ignore[no-any-return]

    assert try_step(model, optimizer, counted).overshoots
    assert len(calls) <= 7
