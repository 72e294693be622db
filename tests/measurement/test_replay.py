from __future__ import annotations

import copy
import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis import Case, diagnose
from grad_callbacks.measurement.replay import undisturbed
from tests.support.diagnosis_cases import Run, Transformer, classes


class Busy(nn.Module):
    """Changes all that a forward pass can: counters, caches, buffers, its own mode and weights, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 10))
        self.register_buffer("average", torch.zeros(10))
        self.calls = 0
        self.seen: list[Tensor] = [torch.zeros(1)]
        self.cache: dict[str, Any] = {"nested": [0]}
        self.recent: deque[int] = deque([1, 2], maxlen=2)
        self.names = {"first"}
        self.plain = torch.zeros(3)
        self.array = np.zeros(3)
        self.generator = torch.Generator().manual_seed(3)
        self.dice = random.Random(3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x.detach())
        self.seen[0] += 1
        self.cache["nested"].append(self.calls)
        self.cache[f"call {self.calls}"] = x
        self.recent.append(self.calls)
        self.names.add(str(self.calls))
        self.plain += 1
        self.array += 1
        self.late = x
        noise = torch.rand(1, generator=self.generator) + self.dice.random() + random.random() + np.random.rand()  # noqa: NPY002
        y = self.layers(x) + 1e-3 * noise.float()
        self.average.mul_(0.9).add_(0.1 * y.detach().mean(dim=0))  # type: ignore[operator]
        self.average = self.average + 0
        self.layers[0].weight.data.clamp_(-0.1, 0.1)
        self.layers[2].eval()
        return y


def state_of(model: nn.Module) -> list[Any]:
    """All that the model is and what comes next out of the random generators, without disturbing them."""
    plain = [
        copy.deepcopy(
            {
                key: value.get_state() if isinstance(value, torch.Generator) else value
                for key, value in module.__dict__.items()
                if not key.startswith("_")
            }
        )
        for module in model.modules()
    ]
    tensors = [
        (name, tensor.data_ptr(), tensor._version, tensor.detach().clone()) for name, tensor in named_tensors(model)
    ]
    gradients = [None if p.grad is None else (p.grad.data_ptr(), p.grad.clone()) for p in model.parameters()]
    numbers = [torch.get_rng_state(), np.random.get_state(), random.getstate()]  # noqa: NPY002
    return [plain, tensors, gradients, numbers]


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.numpy().tobytes() == right.numpy().tobytes()
        )
    if isinstance(left, np.ndarray):
        return left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple, deque)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, random.Random):
        return bool(left.getstate() == right.getstate())
    return bool(left == right)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 100), kind=st.sampled_from(["vanishing", "exploding", "nonfinite"]), fails=st.booleans())
def test_a_diagnosis_changes_no_bit(seed: int, kind: Any, fails: bool) -> None:
    torch.manual_seed(seed)
    model = Busy()
    run = Run(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9))
    run.train([classes(0), classes(1)]).stop_at(classes(2))
    case = run.case(losses=tuple(run.losses))
    if fails:
        whole = case.replay
        assert whole is not None

        def replay() -> Tensor:
            whole()
            raise RuntimeError("in the middle")

        case = run.case(replay=replay)
    alert = run.alert(kind)
    before, optimizer = state_of(model), copy.deepcopy(run.optimizer.state_dict())
    diagnose(alert, case)
    after = state_of(model)
    for part, (left, right) in enumerate(zip(before, after, strict=True)):
        assert same(left, right), part
    assert same(optimizer["state"], run.optimizer.state_dict()["state"])


def test_a_run_goes_on_as_if_nobody_had_looked() -> None:
    weights = []
    for looks in (False, True):
        torch.manual_seed(5)
        model = Transformer()
        run = Run(model, optimizer=torch.optim.Adam(model.parameters(), lr=1e-2))
        for step in range(6):
            run.stop_at(classes(step, time=5))
            if looks:
                for kind in ("vanishing", "exploding", "nonfinite"):
                    diagnose(run.alert(kind), run.case())  # type: ignore[arg-type]
            run.optimizer.step()
        weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    assert torch.equal(*weights)


def test_a_graph_that_is_kept_can_still_be_used() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    inputs = torch.randn(8, 4)
    loss = model(inputs).square().mean()
    with undisturbed(model):
        model(inputs).sum().backward()
        assert model[0].weight.grad is not None
    loss.backward()
    expected = torch.autograd.grad(model(inputs).square().mean(), model[0].weight)[0]
    assert torch.allclose(model[0].weight.grad, expected)


def test_it_is_undone_after_an_interruption() -> None:
    model = nn.Linear(2, 2)

    def interrupted() -> None:
        with undisturbed(model):
            model.weight.data.zero_()
            model.extra = 1  # type: ignore[assignment]
            model.register_parameter("more", nn.Parameter(torch.zeros(1)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert model.weight.abs().sum() > 0
    assert not hasattr(model, "extra")
    assert [name for name, _ in model.named_parameters()] == ["weight", "bias"]


def test_a_case_needs_only_the_model() -> None:
    case = Case(nn.Linear(2, 2))
    assert case.replay is None
    assert case.losses == ()
