"""Two processes that train replicas repair the run alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.distributed.repairs import WORLD
from tests.support.processes import ForkServer
from tests.support.repairs import REPAIRS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Path:
    """What the processes did."""
    path = tmp_path_factory.mktemp("repairs")
    process = fork_server.start_module("tests.support.distributed.repairs", str(path), cwd=path)
    assert process.wait(300) == 0, process.said[-4000:]
    return path


def seen(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each process did."""
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", [*REPAIRS, "trial"])
def test_both_processes_do_the_same_and_have_the_same_weights(folder: Path, name: str) -> None:
    one, other = seen(folder, name)
    assert one["interventions"] == other["interventions"]
    assert one["trials"] == other["trials"]
    for key, value in one["weights"].items():
        assert torch.isfinite(value).all(), key
        assert torch.equal(value, other["weights"][key]), key


@pytest.mark.parametrize("name", REPAIRS)
def test_what_one_process_cannot_see_is_repaired_too(folder: Path, name: str) -> None:
    made = [made["remedy"] for made in seen(folder, name)[0]["interventions"]]
    place = 1 if name == "anew" else 0  # it stands beside the first
    assert made[place] == REPAIRS[name].remedy


def test_a_trial_has_one_winner(folder: Path) -> None:
    result = seen(folder, "trial")[0]["trials"][0]
    assert result["winner"] == "Rollback"
    assert set(result["scores"]) == {"none", "ClipValue", "ClipValue from the snapshot", "Rollback"}
