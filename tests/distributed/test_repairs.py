"""Two processes that train replicas repair the run alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.repairs import WORLD
from tests.repairs import REPAIRS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processes did."""
    path = tmp_path_factory.mktemp("repairs")
    command = [sys.executable, "-W", "ignore", "-m", "tests.distributed.repairs", str(path)]
    done = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
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
    assert made[0] == REPAIRS[name].remedy


def test_a_trial_has_one_winner(folder: Path) -> None:
    result = seen(folder, "trial")[0]["trials"][0]
    assert result["winner"] == "Rollback"
    assert set(result["scores"]) == {"none", "ClipValue", "ClipValue from the snapshot", "Rollback"}
