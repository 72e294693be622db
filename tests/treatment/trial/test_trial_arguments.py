"""What a trial can be told, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from omegaconf import OmegaConf

from grad_callbacks import GradientGuard, Trial


@pytest.mark.parametrize(
    ("spec", "message"),
    [({"steps": 0}, "steps"), ({"margin": 1.0}, "margin"), ({"rounds": 3}, "rounds")],
)
def test_a_wrong_argument_is_named(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientGuard(trial=spec)


def test_plain_values_say_the_same() -> None:
    assert GradientGuard(trial={"steps": 5}).trial == Trial(steps=5)
    assert GradientGuard(trial=True).trial == Trial()
    assert GradientGuard(trial=False).trial is GradientGuard().trial is None


def test_hydra_and_lightnings_command_line_can_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmegaConf.create({"_target_": "grad_callbacks.GradientGuard", "trial": {"steps": 7}})
    assert instantiate(config).trial == Trial(steps=7)
    monkeypatch.chdir(tmp_path)
    for spec, expected in (({"steps": 7, "most": 1}, Trial(steps=7, most=1)), (True, Trial()), (None, None)):
        guard = {"class_path": "grad_callbacks.GradientGuard", "init_args": {"trial": spec}}
        options = {"logger": False, "accelerator": "cpu", "callbacks": [guard]}
        cli = LightningCLI(BoringModel, run=False, args={"trainer": options})
        [made] = [callback for callback in cli.trainer.callbacks if isinstance(callback, GradientGuard)]
        assert made.trial == expected
