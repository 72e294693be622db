"""An optimizer's memory of any type goes back whole, and what a scheduler has set stays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.treatment.step import Snapshots


@dataclass
class Projector:
    """As GaLore's: an object with tensors in it."""

    rank: int = 2
    basis: Tensor | None = None
    history: list[Tensor] = field(default_factory=list)


class Pair(NamedTuple):
    left: Tensor
    right: int


class Odd(torch.optim.Optimizer):
    """Remembers things of every type, in its state, its groups and itself."""

    def __init__(self, parameters: Any, lr: float = 0.1) -> None:
        counters = {"k": 0, "weight_sum": 0.0, "lr_max": torch.tensor(0.0)}
        super().__init__(parameters, {"lr": lr, "momentum": 0.9, **counters})
        self.generator = torch.Generator().manual_seed(0)
        self.total = 0
        self.nested = {"a": [0, (torch.zeros(2), None)]}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.total += 1
        self.nested["a"][0] += 1
        self.nested["a"][1][0].add_(1)
        self.state["steps"] = self.state.get("steps", 0) + 1  # no mapping, and no parameter's
        for group in self.param_groups:
            group["k"] += 1
            group["weight_sum"] += group["lr"]
            group["lr_max"] = torch.maximum(group["lr_max"], torch.tensor(group["lr"]))
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state.update(queue=deque(maxlen=3), factors=[None, torch.zeros(2)], projector=Projector())
                    state.update(pair=Pair(torch.zeros(2), 0), deep={"x": {"y": [torch.zeros(1)]}}, nothing=None)
                state["queue"].append(parameter.grad.clone())
                state["factors"][0] = (state["factors"][0] or 0) + 1
                state["factors"][1] += float(parameter.grad.sum())
                state["projector"].basis = parameter.grad * 2
                state["projector"].history.append(parameter.grad.mean())
                state["pair"] = Pair(state["pair"].left + 1, state["pair"].right + 1)
                state["deep"]["x"]["y"][0].add_(1)
                noise = torch.rand(parameter.shape, generator=self.generator)
                oldest = state["queue"][0] * (1 + state["pair"].right / 100) + 0.01 * noise * self.total
                parameter.sub_(group["lr"] * oldest / (1 + group["k"]))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("memory", [None, 0])
def test_after_going_back_it_goes_on_as_if_it_had_never_been_away(before: int, memory: float | None) -> None:
    def run(away: int) -> tuple[dict[str, Tensor], Odd]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = Odd(model.parameters())
        snapshots = Snapshots(model, optimizer, memory=memory)
        train(model, optimizer, range(before))
        snapshots.begin(before)
        train(model, optimizer, range(100, 100 + away))
        snapshots.restore(snapshots.entries[0])
        train(model, optimizer, range(200, 205))
        return model.state_dict(), optimizer

    (there, one), (wanted, other) = run(7), run(0)
    torch.testing.assert_close(there, wanted, rtol=0, atol=0)
    assert one.total == one.nested["a"][0] == one.state["steps"] == other.total == before + 5
    assert one.param_groups[0]["k"] == other.param_groups[0]["k"] == before + 5
    for mine, theirs in zip(one.state.values(), other.state.values(), strict=True):
        if isinstance(mine, dict):
            assert mine["queue"].maxlen == 3
            torch.testing.assert_close(mine["projector"].history, theirs["projector"].history)
            torch.testing.assert_close(mine["deep"], theirs["deep"])


def test_what_schedulers_and_users_have_set_stays() -> None:
    model = nn.Linear(3, 2)
    optimizer = Odd(model.parameters(), lr=0.1)
    snapshots = Snapshots(model, optimizer)
    snapshots.begin(0)
    train(model, optimizer, range(3))
    optimizer.param_groups[0].update(lr=0.01, momentum=0.5, initial_lr=0.2)
    snapshots.restore(snapshots.entries[0])
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["initial_lr"]) == (0.01, 0.5, 0.2)
    assert (group["k"], group["weight_sum"], float(group["lr_max"])) == (0, 0.0, 0.0)


def test_an_optimizer_within_another_goes_back_too() -> None:
    class Lookahead(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner, self.count = inner, 0
            self.slow = [p.detach().clone() for group in inner.param_groups for p in group["params"]]
            super().__init__([p for group in inner.param_groups for p in group["params"]], {})
            self.param_groups = inner.param_groups

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            self.inner.step()
            self.count += 1
            if self.count % 3 == 0:
                for slow, group in zip(self.slow, self.param_groups[0]["params"], strict=True):
                    slow.lerp_(group, 0.5)
                    group.copy_(slow)

    def run(away: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = Lookahead(torch.optim.Adam(model.parameters(), lr=0.1))
        snapshots = Snapshots(model, optimizer)
        train(model, optimizer, range(4))
        snapshots.begin(4)
        train(model, optimizer, range(100, 100 + away))
        snapshots.restore(snapshots.entries[0])
        train(model, optimizer, range(200, 208))
        return model.state_dict()

    torch.testing.assert_close(run(4), run(0), rtol=0, atol=0)


def test_tensors_stay_the_same_objects() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, range(2))
    before = optimizer.state[model.weight]["exp_avg"]
    snapshots = Snapshots(model, optimizer)
    snapshots.begin(0)
    train(model, optimizer, range(2, 4))
    snapshots.restore(snapshots.entries[0])
    assert optimizer.state[model.weight]["exp_avg"] is before


def test_an_entry_that_no_one_can_copy_is_left_as_it_is() -> None:
    class Handle:
        __slots__ = ()

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copies")

    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    handle = optimizer.state[model.weight]["handle"] = Handle()
    train(model, optimizer, range(2))
    snapshots = Snapshots(model, optimizer)
    snapshots.begin(0)
    snapshots.restore(snapshots.entries[0])
    assert optimizer.state[model.weight]["handle"] is handle


def test_a_state_that_cannot_be_copied_costs_the_snapshot_and_not_the_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stubborn(Tensor):
        def clone(self, *_: Any, **__: Any) -> Tensor:
            raise NotImplementedError("no clones")

    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["odd"] = torch.zeros(2).as_subclass(Stubborn)
    snapshots = Snapshots(model, optimizer)
    snapshots.begin(0)
    assert snapshots.entries == []
    [said] = [record.getMessage() for record in caplog.records]
    assert "NotImplementedError: no clones" in said
