"""Every way of sharding gives the numbers, and the decisions, of one process with the whole model.

Reference: the same training in float64 by one process, clipped and skipped by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.distributed.sharding import BAD_STEP, CASES, MAX_NORM, ORDER, STEPS, brute_force
from tests.support.processes import ForkServer

FINITE = [step for step in range(STEPS) if step != BAD_STEP]
LAYERWISE = [case for case in CASES if case != "fsdp-flat"]  # flattened parameters are known by unit only


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Path:
    """What the processes of all cases saw."""
    path = tmp_path_factory.mktemp("sharding")
    process = fork_server.start_module("tests.support.distributed.worker", str(path), *CASES, cwd=path)
    assert process.wait(600) == 0, process.said[-4000:]
    return path


def seen(folder: Path, case: str) -> list[dict[str, Any]]:
    """What each process of a case saw."""
    error = folder / f"{case}.error"
    assert not error.exists(), error.read_text()
    return [torch.load(folder / f"{case}.{rank}.pt", weights_only=True) for rank in range(CASES[case][3])]


@pytest.mark.parametrize("case", CASES)
def test_all_processes_see_and_do_the_same(folder: Path, case: str) -> None:
    first, *others = seen(folder, case)
    for other in others:
        for key in ("alerts", "interventions", "layers"):
            assert other[key] == first[key]
        for key in ("norms", "weight_norms", "update_ratios"):
            assert np.array_equal(other[key], first[key], equal_nan=True), key


@pytest.mark.parametrize("case", LAYERWISE)
def test_layers_have_their_own_names_in_forward_order(folder: Path, case: str) -> None:
    layers = seen(folder, case)[0]["layers"]
    assert [name.removeprefix("net.") for name in layers if "unused" not in name] == ORDER


@pytest.mark.parametrize("case", CASES)
def test_the_global_norm_agrees_with_brute_force(folder: Path, case: str) -> None:
    norms = seen(folder, case)[0]["norms"]
    expected = brute_force(CASES[case][2])["total"]
    for step in FINITE:
        assert np.sqrt(np.sum(np.square(norms[step]))) == pytest.approx(expected[step], rel=1e-5)
    assert not np.isfinite(np.sum(norms[BAD_STEP])), "NaN on one process is NaN on all"


@pytest.mark.parametrize("key", ["norms", "weight_norms", "update_ratios"])
@pytest.mark.parametrize("case", LAYERWISE)
def test_each_layer_agrees_with_brute_force(folder: Path, case: str, key: str) -> None:
    result = seen(folder, case)[0]
    used = [i for i, name in enumerate(result["layers"]) if "unused" not in name]
    expected = brute_force(CASES[case][2])[key]
    for step in FINITE[:-1] if key == "update_ratios" else FINITE:  # a ratio comes home with the next reading
        tolerance = 1e-3 if key == "update_ratios" else 1e-5  # a difference of float32 weights has fewer digits
        assert [result[key][step][i] for i in used] == pytest.approx(expected[step], rel=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_all_processes_judge_by_the_mean_of_their_losses(folder: Path, case: str) -> None:
    expected = brute_force(CASES[case][2])["losses"]
    for result in seen(folder, case):
        assert [result["losses"][step] for step in FINITE] == pytest.approx(
            [expected[step] for step in FINITE], rel=1e-5
        )
        assert np.isnan(result["losses"][BAD_STEP]), "NaN on one process is NaN on all"


@pytest.mark.parametrize("case", CASES)
def test_clipping_goes_by_the_whole_norm(folder: Path, case: str) -> None:
    [clip, _] = seen(folder, case)[0]["interventions"]
    clipped = sum(total > MAX_NORM for step, total in enumerate(brute_force(CASES[case][2])["total"]) if step in FINITE)
    assert (clip["remedy"], clip["detail"]["steps"]) == ("ClipNorm", clipped)


@pytest.mark.parametrize("case", CASES)
def test_a_bad_batch_of_one_process_is_an_exact_no_op_for_all(folder: Path, case: str) -> None:
    for result in seen(folder, case):
        assert [alert["step"] for alert in result["alerts"] if alert["kind"] == "nonfinite"] == [BAD_STEP]
        assert result["changed"] == [step != BAD_STEP for step in range(STEPS)]


@pytest.mark.parametrize("case", CASES)
def test_a_step_costs_one_collective(folder: Path, case: str) -> None:
    # Gradients that are partial sums, weight and bias of the norm, are added up here instead of by the optimizer.
    collectives = {"sequence": 3}.get(case, 1)
    assert seen(folder, case)[0]["collectives"][1:] == [collectives] * (STEPS - 1)
