"""Steps that are taken by their norms and loss alone leave everything as judging each of them would."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grad_callbacks import Alert, Engine, Exploding, Prescription, Reading, Remedy, Rule
from grad_callbacks._utils.overriding import speaks_for
from grad_callbacks.engine.quiet_steps import QuietSteps
from grad_callbacks.reporting.record import Record
from grad_callbacks.treatment.remedies import ClipNorm

STEPS = 130


class SeesAll(Rule):
    """A rule of a user's own."""

    kind = "seen"

    def __init__(self) -> None:
        self.steps: list[int] = []

    def judge(self, reading: Reading) -> Alert | None:
        self.steps.append(reading.step)
        return None


class SeesMore(Exploding):
    """A built-in rule that judges otherwise."""

    def judge(self, reading: Reading) -> Alert | None:
        self.last = reading.step
        return super().judge(reading)


class Run:
    """A run of a small network under an engine.

    Args:
        make: Makes the optimizer.
        spike: Step at which the loss is ten thousand times as large.
        frozen: The first layer is not trained.
        norm: There is a batch normalisation.
        arguments: Of the engine.
    """

    def __init__(
        self,
        make: Callable[[Any], torch.optim.Optimizer] = torch.optim.Adam,
        spike: int | None = None,
        frozen: bool = False,
        norm: bool = False,
        **arguments: Any,
    ) -> None:
        torch.manual_seed(0)
        layers = [module for _ in range(6) for module in (nn.Linear(8, 8), nn.Tanh())]
        if norm:
            layers.insert(1, nn.BatchNorm1d(8))
        self.model: Any = nn.Sequential(*layers, nn.Linear(8, 1))
        if frozen:
            self.model[0].requires_grad_(False)
        self.spike = spike
        self.optimizer = make(self.model.parameters())
        self.engine = Engine(self.model, self.optimizer, **arguments)
        self.batches = torch.Generator().manual_seed(1)
        self.place = 0

    def step(self) -> Any:
        inputs = torch.randn(16, 8, generator=self.batches)
        scale = 1e4 if self.place == self.spike else 1.0
        loss = scale * (self.model(inputs) - inputs.sum(dim=1, keepdim=True).sin()).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        result = self.engine.before_step(loss=loss)
        self.optimizer.step()
        self.place += 1
        return result

    def train(self, steps: int = STEPS) -> Run:
        for _ in range(steps):
            self.step()
        return self


@pytest.fixture
def each_is_judged() -> Any:
    """Returns a run of which each step is judged at once."""

    def train(**arguments: Any) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(QuietSteps, "is_open", property(lambda self: False))
            return Run(**arguments).train()

    return train


def quiet_steps(run: Run, steps: int = STEPS) -> int:
    """Train, and return in how many steps a reading was kept or taken in without a judgement of its own."""
    begun: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        begin = QuietSteps.begin
        patch.setattr(QuietSteps, "begin", lambda self, *found: (begun.append(run.place), begin(self, *found)))
        run.train(steps)
    return steps - len(begun)


def plain(value: Any) -> Any:
    """A state, so that NaN equals NaN."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Tensor):
        return plain(value.tolist())
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def all_of(run: Run) -> list[Any]:
    """All that a run has left."""
    found = [plain(run.engine.state_dict()), plain(run.engine.record.state_dict())]
    return [*found, [parameter.tolist() for parameter in run.model.parameters()]]


def guarded(**arguments: Any) -> dict[str, Any]:
    return {"prescription": Prescription(), **arguments}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        guarded(),
        guarded(make=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
        guarded(make=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1)),
        guarded(frozen=True),
        guarded(norm=True),
        guarded(spike=90),
        guarded(spike=90, make=lambda p: torch.optim.SGD(p, lr=0.05)),
        {"every_n_steps": 2},
    ],
)
def test_all_is_as_if_each_step_were_judged(arguments: dict[str, Any], each_is_judged: Callable[..., Run]) -> None:
    run = Run(**arguments)
    assert quiet_steps(run) > STEPS // 3
    assert all_of(run) == all_of(each_is_judged(**arguments))


def test_a_bad_batch_is_answered_in_its_own_step() -> None:
    run = Run(**guarded(spike=90, make=lambda p: torch.optim.SGD(p, lr=0.05))).train(90)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    run.step()
    assert [made.step for made in run.engine.record.interventions] == [90]
    moved = [(now - then).norm() for now, then in zip(run.model.parameters(), before, strict=True)]
    assert max(moved) < 0.1


def test_the_results_of_steps_are_those_of_judged_ones() -> None:
    told: list[Any] = []
    run = Run(on_step_result=told.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuietSteps, "is_open", property(lambda self: False))
        expected = [step for other in [Run()] for step in (other.step() for _ in range(80))]
    results = [run.step() for _ in range(80)]
    assert told == results
    for result, other in zip(results, expected, strict=True):
        for name in ("norm_clipped", "coefficient", "lr_scale", "lr_effective"):
            assert getattr(result, name) == getattr(other, name)
        for name in ("step", "norm", "loss", "motion", "displacement", "decay_per_layer", "layer_rms", "present"):
            np.testing.assert_array_equal(getattr(result.reading, name), getattr(other.reading, name))


def test_the_history_is_complete_whenever_it_is_asked_for() -> None:
    run = Run()
    for step in range(80):
        run.step()
        assert run.engine.record.history()["step"].max() == step
    assert run.engine.record.readings.count == 80


def test_readings_of_two_optimizers_stay_in_order() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    record = Record()
    optimizers = [torch.optim.Adam(part.parameters()) for part in (model[0], model[2])]
    engines = [Engine(model, each, record=record, index=place) for place, each in enumerate(optimizers)]
    for _ in range(40):
        model(torch.randn(4, 8)).square().mean().backward()
        for engine, optimizer in zip(engines, optimizers, strict=True):
            engine.before_step()
            optimizer.step()
    assert record.history()["step"].is_monotonic_increasing
    engines[1].close()
    assert not record.readings.is_shared


def test_a_state_from_the_middle_continues_to_the_same_end() -> None:
    whole = Run(**guarded()).train(77)
    resumed = Run(**guarded())
    states = copy.deepcopy((whole.engine.record.state_dict(), whole.engine.state_dict()))
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    resumed.batches.set_state(whole.batches.get_state())
    resumed.engine.record.load_state_dict(states[0])
    resumed.engine.load_state_dict(states[1])
    ends = [all_of(run.train(50)) for run in (whole, resumed)]
    # Only the snapshots differ: they stay in the process.
    for end in ends:
        end[0]["snapshots"] = None
    assert ends[0] == ends[1]


def test_a_rule_of_ones_own_sees_each_reading_in_its_step() -> None:
    run = Run(rules=[SeesAll(), "Vanishing"])
    own: Any = run.engine.rules[0]
    for step in range(80):
        run.step()
        assert own.steps[-1] == step


def test_a_built_in_rule_that_judges_otherwise_sees_each_reading_in_its_step() -> None:
    run = Run(rules=[SeesMore()])
    own: Any = run.engine.rules[0]
    for step in range(80):
        run.step()
        assert own.last == step


class Counts(ClipNorm):
    """A built-in remedy that acts otherwise."""

    steps = 0

    def act(self, step: Any) -> Any:
        self.steps += 1
        return super().act(step)


class CountsAlone(Remedy):
    """A remedy of a user's own."""

    steps = 0

    def engage(self, step: Any, evidence: Any) -> dict[str, Any] | None:
        return None

    def act(self, step: Any) -> bool:
        self.steps += 1
        return False


@pytest.mark.parametrize("remedy", [Counts, CountsAlone])
def test_a_remedy_of_ones_own_sees_each_step(remedy: type[Any]) -> None:
    run = Run(prescription={"exploding": [remedy()]}).train(80)
    assert run.engine.prescription is not None
    own: Any = run.engine.prescription.remedies["exploding"][0]
    assert own.steps == 80


def test_a_rate_that_a_schedule_changes_is_noted_step_by_step(each_is_judged: Callable[..., Run]) -> None:
    def train() -> Run:
        run = Run(**guarded())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(run.optimizer, STEPS)
        for _ in range(STEPS):
            run.step()
            schedule.step()
        return run

    run = train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuietSteps, "is_open", property(lambda self: False))
        assert all_of(run) == all_of(train())


def test_running_statistics_of_the_last_good_step_are_kept() -> None:
    run = Run(**guarded(norm=True))
    assert quiet_steps(run, 90) > 30
    statistics = run.model[1].running_mean
    before = statistics.clone()
    run.model[0].weight.register_hook(lambda gradient: gradient * math.nan)
    run.step()
    np.testing.assert_array_equal(statistics, before)


def test_a_method_does_not_speak_for_one_that_was_replaced() -> None:
    assert speaks_for(Exploding, "leeway", "judge")
    assert not speaks_for(SeesMore, "leeway", "judge")
    assert not speaks_for(SeesAll, "leeway", "judge")
