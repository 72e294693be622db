"""Going back: what a snapshot holds and when it is trusted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grad_callbacks import GradientGuard
from grad_callbacks.treatment.step import Snapshots
from grad_callbacks.treatment.step.snapshot_store import memory_limit
from grad_callbacks.treatment.step.snapshots import LIMITS

MAKES: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5),
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()


@settings(max_examples=20, deadline=None)
@given(before=st.integers(0, 5), between=st.integers(0, 7), after=st.integers(1, 5), which=st.integers(0, 2))
def test_after_going_back_it_goes_on_as_if_it_had_never_been_away(
    before: int, between: int, after: int, which: int
) -> None:
    def run(away: int) -> dict[str, Tensor]:
        model = network()
        optimizer = MAKES[which](model.parameters())
        train(model, optimizer, range(before))
        snapshots = Snapshots(model, optimizer)
        snapshots.begin(before)
        train(model, optimizer, range(100, 100 + away))
        snapshots.restore(snapshots.entries[0])
        train(model, optimizer, range(200, 200 + after))
        return model.state_dict()

    torch.testing.assert_close(run(between), run(0), rtol=0, atol=0)


@given(moods=st.lists(st.sampled_from(["calm", "calm", "calm", "near", "trouble"]), max_size=300))
@settings(max_examples=50, deadline=None)
def test_only_what_was_calm_for_long_is_gone_back_to_and_their_number_is_bounded(moods: list[str]) -> None:
    model = nn.Linear(2, 2)
    snapshots = Snapshots(model, torch.optim.SGD(model.parameters(), lr=0.1), interval=5)
    snapshots.begin(0)
    for step, mood in enumerate(moods):
        snapshots.note(step, mood == "calm", mood == "trouble")
        assert len(snapshots.entries) <= LIMITS.most
        latest = snapshots.latest()
        assert latest is not None
        later = moods[latest["step"] + 1 : step + 1]
        before_trouble = later[: later.index("trouble")] if "trouble" in later else later
        assert latest["first"] or before_trouble.count("calm") >= LIMITS.trusted
        assert [e["step"] for e in snapshots.entries] == sorted(e["step"] for e in snapshots.entries)


def test_a_run_that_is_often_near_trouble_keeps_its_snapshots() -> None:
    model = nn.Linear(2, 2)
    snapshots = Snapshots(model, torch.optim.SGD(model.parameters(), lr=0.1), interval=25)
    snapshots.begin(0)
    for step in range(60):
        snapshots.note(step, calm=step % 3 > 0, is_wrong=False)
    latest = snapshots.latest()
    assert latest is not None
    assert latest["step"] > 30


def test_what_goes_beyond_the_memory_is_written_to_a_file() -> None:
    model = nn.Linear(1024, 1024, bias=False)  # 4 MiB
    snapshots = Snapshots(model, torch.optim.SGD(model.parameters(), lr=0.1), memory=5 * 2**20)
    wanted = []
    for step in range(3):
        snapshots.take(step)
        wanted.append(model.weight.detach().clone())
        assert snapshots.nbytes == 4 * 2**20  # of the first
        nn.init.normal_(model.weight)
    for entry, weight in reversed(list(zip(snapshots.entries, wanted, strict=True))):
        snapshots.restore(entry)
        torch.testing.assert_close(model.weight.detach(), weight, rtol=0, atol=0)


def test_parameters_that_have_changed_since_are_not_gone_back_to() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snapshots = Snapshots(model, optimizer)
    snapshots.begin(0)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    assert snapshots.latest() is snapshots.first is snapshots.oldest is None


@pytest.mark.parametrize("make", MAKES)
def test_after_a_resumption_the_loaded_state_is_the_first_to_go_back_to(
    make: Callable[[Any], torch.optim.Optimizer], tmp_path: Path
) -> None:
    model = network()
    optimizer = make(model.parameters())
    train(model, optimizer, range(3))
    snapshots = Snapshots(model, optimizer)
    snapshots.begin(3)
    torch.save(snapshots.state_dict(), tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 2000
    wanted = copy.deepcopy(model.state_dict())
    again = Snapshots(model, optimizer)
    again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    again.take_resumed(lambda: {"rules": [{"count": 3}]})
    again.take_resumed(lambda: {"rules": "not again"})
    train(model, optimizer, range(3, 6))
    again.note(4, calm=False, is_wrong=True)
    entry = again.latest()
    assert entry is not None
    assert again.first is None  # of untrained weights
    again.restore(entry)
    torch.testing.assert_close(model.state_dict(), wanted, rtol=0, atol=0)
    assert (entry["step"], entry["beside"]) == (3, {"rules": [{"count": 3}]})


def test_the_loss_scale_is_kept_and_put_back() -> None:
    model = network()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", growth_interval=3)
    snapshots = Snapshots(model, optimizer)
    snapshots.scaler = scaler
    for step in range(4):
        if step == 2:
            snapshots.take(step)
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(8, 3)).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.state_dict()["scale"] == 2 * 65536.0
    snapshots.restore(snapshots.entries[0])
    assert (scaler.state_dict()["scale"], scaler.state_dict()["_growth_tracker"]) == (65536.0, 2)


def test_frozen_parts_are_kept_once() -> None:
    model = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snapshots = Snapshots(model, optimizer)
    for step in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, 100)).sum().backward()
        snapshots.take(step)
        optimizer.step()
    assert snapshots.nbytes == 4 * 10100 * (1 + 3)


def test_a_full_disk_is_said_once_and_the_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    model = nn.Linear(10, 10)
    snapshots = Snapshots(model, torch.optim.SGD(model.parameters(), lr=0.1), memory=0)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    snapshots.begin(0)
    snapshots.take(1)
    assert snapshots.entries == []
    [said] = [record.getMessage() for record in caplog.records]
    assert "No space left on device" in said
    assert "Rollback" in said


@pytest.mark.parametrize("memory", [0, 0.0, 0.5, 3.0, 2**20, None])
def test_memory_is_a_share_or_bytes(memory: float | None) -> None:
    assert memory_limit(memory) == memory


@pytest.mark.parametrize("memory", [1, -1, -0.5, float("nan"), float("inf"), True, "1GB"])
def test_other_memory_is_refused(memory: Any) -> None:
    with pytest.raises(ValueError, match="memory must be a share"):
        GradientGuard(memory=memory)
