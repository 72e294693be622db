"""The demo of the package, short, with MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from grad_callbacks import demo
from grad_callbacks.tracking import compare


@pytest.mark.slow
def test_every_network_fails_unguarded_and_learns_guarded(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "EPOCHS", 4)
    assert demo.main() == 0
    said = capsys.readouterr().out
    assert "6 runs in" in said
    table = compare(client, demo.EXPERIMENT).set_index(["scenario", "guard"])
    for scenario in demo.SCENARIOS:
        watched, guarded = (table.loc[(scenario.name, guard)] for guard in ("monitor", "full"))
        assert watched["outcome"] == "unrepaired"
        assert guarded["verdict"] == watched["verdict"]
        assert guarded["accuracy"] > watched["accuracy"] + 0.3, scenario.name
        assert f"{scenario.name}" in said
