"""A run's tables are judged as the run was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from grad_callbacks import GradientMonitor
from grad_callbacks.cli import main
from grad_callbacks.lint.export import read_export
from grad_callbacks.lint.judging import IDS, judge
from tests.support.helpers import SGD, Poisoned, batches, fit, mlp


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return SGD(parameters, lr=0.01, momentum=0.9)


def steep(parameters: Any) -> torch.optim.Optimizer:
    return SGD(parameters, lr=5.0)


def deep() -> nn.Module:
    return mlp(4, *[16] * 9, 2, activation=nn.Sigmoid)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))


RUNS: dict[str, tuple[Any, Any, dict[int, float]]] = {
    "healthy": (lambda: mlp(4, 16, 16, 2), sgd, {}),
    "healthy_adam": (normed, adam, {}),
    "nan": (lambda: mlp(4, 16, 2), sgd, {40: math.nan}),
    "nan_adam": (normed, adam, {40: math.nan}),
    "spike": (lambda: mlp(4, 16, 2), sgd, {40: 1e4}),
    "steep": (lambda: mlp(4, 16, 16, 2), steep, {}),
    "deep": (deep, sgd, {}),
    "deep_adam": (deep, adam, {}),
}
FOUND = {"healthy": "healthy", "nan": "nonfinite", "spike": "exploding", "steep": "exploding", "deep": "vanishing"}


def trained(name: str) -> GradientMonitor:
    model, optimizer, factors = RUNS[name]
    monitor = GradientMonitor(summary=False, progress_bar=False)
    torch.manual_seed(0)
    fit(Poisoned(model(), optimizer, factors=factors), monitor, data=batches(64), max_epochs=2)
    return monitor


def written(monitor: GradientMonitor, folder: Path, suffix: str, **left_out: list[str]) -> Path:
    tables = {"history": monitor.history(), "steps": monitor.step_series.to_frame()}
    for name, table in tables.items():
        kept = table.drop(columns=left_out.get(name, []))
        if suffix == ".parquet":
            kept.to_parquet(folder / f"{name}{suffix}")
        else:
            kept.to_csv(folder / f"{name}{suffix}", index=False)
    return folder / f"history{suffix}"


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("name", RUNS)
def test_verdict_and_alerts_are_those_of_the_run(name: str, suffix: str, tmp_path: Path) -> None:
    monitor = trained(name)
    judgement = judge(read_export(written(monitor, tmp_path, suffix)))
    assert judgement.verdict == monitor.verdict == FOUND[name.removesuffix("_adam")]
    assert bool(judgement.findings) == bool(monitor.alerts)
    found = [(finding.alert.kind, finding.alert.step) for finding in judgement.findings]
    assert found == [(alert.kind, alert.step) for alert in monitor.alerts]
    assert judgement.readings == 128
    assert judgement.not_judged


@pytest.mark.parametrize("name", RUNS)
def test_a_history_alone_raises_nothing_that_the_run_has_not(name: str, tmp_path: Path) -> None:
    monitor = trained(name)
    file = written(monitor, tmp_path, ".csv", history=["profiled"])
    (tmp_path / "steps.csv").unlink()
    judgement = judge(read_export(file))
    assert {finding.alert.kind for finding in judgement.findings} <= {alert.kind for alert in monitor.alerts}
    if name.startswith(("nan", "deep")):
        assert judgement.verdict == monitor.verdict, "norms alone tell these"
    assert any("steps.parquet" in what for what in judgement.not_judged)
    assert any("taken from their names" in what for what in judgement.not_judged)


def test_a_muted_rule_says_nothing(tmp_path: Path) -> None:
    export = read_export(written(trained("nan"), tmp_path, ".csv"))
    [finding] = judge(export).findings
    assert finding.rule == "NonFinite"
    muted = judge(export, mute=["non_finite"])
    assert not muted.findings
    assert "muted: NonFinite" in muted.not_judged
    with pytest.raises(ValueError, match=r"no rule 'NaN' to mute; there are: Exploding, .*FirstStep"):
        judge(export, mute=["NaN"])


def test_the_ids_of_the_rules_are_stable() -> None:
    assert IDS == ("Exploding", "Outlier", "SaturatedAttention", "NonFinite", "Vanishing", "FirstStep")


def test_the_command_prints_findings_and_what_was_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(trained("nan"), tmp_path, ".parquet")
    row = {"columns": ["kind", "step"], "data": [["nonfinite", 40]]}
    (tmp_path / "alerts.json").write_text(json.dumps(row))
    assert main(["lint", str(file)]) == 1
    first, found, *rest = capsys.readouterr().out.splitlines()
    assert first == "nonfinite: 128 readings of 2 layers"
    assert found.startswith("step 40: NonFinite: nonfinite gradients (")
    assert "the run itself has raised: nonfinite at step 40" in rest
    assert any(line.startswith("not judged: signal and error") for line in rest)
    assert main(["lint", str(file), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["findings"][0]["rule"], told["findings"][0]["step"]) == ("nonfinite", "NonFinite", 40)


def test_a_healthy_run_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(written(trained("healthy"), tmp_path, ".csv"))]) == 0
    assert capsys.readouterr().out.startswith("healthy: 128 readings of 3 layers\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no file"),
        ("", "cannot be read"),
        ("a,b\n1,2\n", "is no history of a run: it has no column step, layer, norm"),
        ("step,layer,norm\n", "has no rows"),
    ],
)
def test_what_is_no_history_is_refused_in_one_line(
    text: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "history.csv"
    if text is not None:
        file.write_text(text)
    assert main(["lint", str(file)]) == 2
    assert told in capsys.readouterr().err


def test_a_run_of_two_optimizers_is_judged_by_each_step_s_own_layers(tmp_path: Path) -> None:
    rows = [(step, f"{'ab'[step % 2]}.{layer}", 1.0 + 0.01 * step) for step in range(60) for layer in range(3)]
    pd.DataFrame(rows, columns=["step", "layer", "norm"]).to_csv(tmp_path / "history.csv", index=False)
    judgement = judge(read_export(tmp_path / "history.csv"))
    assert not judgement.findings
    assert judgement.readings == 60
