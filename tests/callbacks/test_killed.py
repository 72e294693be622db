"""A run that was killed with SIGKILL and resumed does what it would have done without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.killed import KILLED_AT
from tests.support.processes import ForkServer
from tests.support.repairs import REPAIRS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Path:
    """What the runs did."""
    path = tmp_path_factory.mktemp("killed")
    process = fork_server.start_module("tests.support.killed", str(path), cwd=path)
    assert process.wait(300) == 0, process.said[-4000:]
    return path


def seen(folder: Path, name: str) -> dict[str, Any]:
    """What one run did."""
    return torch.load(folder / f"{name}.pt", weights_only=True)  # type: ignore[no-any-return]


SOON = 35  # steps until a snapshot of the resumed run is trusted


def _steps(told: Any, last: int) -> list[tuple[int, str]]:
    return [(made["step"], made["remedy"]) for made in told["interventions"] if made["step"] <= last]


@pytest.mark.parametrize("kill", KILLED_AT)
@pytest.mark.parametrize("name", REPAIRS)
def test_killed_and_resumed_it_does_the_same(folder: Path, name: str, kill: int) -> None:
    whole, resumed = seen(folder, name), seen(folder, f"{name}-{kill}")
    assert REPAIRS[name].remedy in [made["remedy"] for made in whole["interventions"]]
    backs = (made["step"] for made in whole["interventions"] if made["remedy"] == "Rollback" and made["step"] > kill)
    back = next(backs, 0)
    if 0 < back - kill < SOON:
        # Checkpoints hold no snapshots: so soon after a resume it goes back to the checkpoint.
        assert _steps(resumed, back) == _steps(whole, back)
        assert all(bool(torch.isfinite(value).all()) for value in resumed["weights"].values())
        return
    assert resumed["interventions"] == whole["interventions"]
    assert resumed["alerts"] == whole["alerts"]
    for key, value in whole["weights"].items():
        assert torch.equal(resumed["weights"][key], value), key
