"""A user's own model, data or whole module in the experiments, by ``_target_``."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig

from experiments.run import run
from experiments.settings import ConfigError
from tests.experiments.test_run import config
from tests.support.processes import ForkServer

HOME = "tests.support.ill_modules"
QUICK = ["logger=none", "guard=monitor", "trainer.max_epochs=2"]


def own(*overrides: str) -> DictConfig:
    return config(*QUICK, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [f"model._target_={HOME}.PlainNet"],
        ["model=own", f"model._target_={HOME}.PlainNet", "+model.hidden=24"],
        [f"model._target_={HOME}.PlainNet", f"data._target_={HOME}.Digits"],
        [f"model._target_={HOME}.PlainNet", "data=own", f"data._target_={HOME}.digits"],
        [f"data._target_={HOME}.Digits", "+model.in_features=64", "+model.out_features=10"],
    ],
)
def test_a_class_of_ones_own_is_trained_without_deleting_a_setting(overrides: list[str]) -> None:
    assert run(own(*overrides)).accuracy > 0.6


def test_a_model_gets_its_own_arguments() -> None:
    result = run(own("model=own", f"model._target_={HOME}.PlainNet", "+model.hidden=24"))
    assert result.monitor is not None
    assert set(result.monitor.history()["layer"]) == {"model.net.0", "model.net.2"}


@pytest.mark.parametrize("task", [[f"task._target_={HOME}.DeepNet"], ["task=own", f"task._target_={HOME}.DeepNet"]])
def test_a_whole_module_needs_no_model_and_has_its_own_optimizer(task: list[str]) -> None:
    result = run(own(*task, f"data._target_={HOME}.digits", "+task.depth=2"))
    assert result.accuracy > 0.6
    assert str(result).startswith("quality unknown: no `val/quality` was logged; verdict healthy")
    assert result.monitor is not None
    assert "net.0" in set(result.monitor.history()["layer"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=own"], "task._target_ is missing: give the import path of your own"),
        ([f"task._target_={HOME}.PlainNet"], "task: .*PlainNet gives a PlainNet, which is no LightningModule"),
        ([f"model._target_={HOME}.DeepNt"], "^model: .*DeepNt"),
        (
            [f"data._target_={HOME}.Digits"],
            r"model: experiments.models.MLP needs in_features, and the data \(.*Digits\) have no attribute of that "
            r"name: add it, or give \+model.in_features=",
        ),
    ],
)
def test_what_is_missing_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(own(*overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.depth=3", "model.depth: tests.support.ill_modules.PlainNet has no parameter 'depth'; it takes hidden"),
        ("+model.hiden=3", "PlainNet has no parameter 'hiden'; did you mean 'hidden'?"),
    ],
)
def test_a_setting_of_the_command_line_that_the_class_does_not_take_is_refused(
    override: str, message: str, fork_server: ForkServer, tmp_path: Path
) -> None:
    arguments = [f"model._target_={HOME}.PlainNet", override, "logger=none", "hydra.run.dir=hydra"]
    process = fork_server.start_module("experiments.run", *arguments, cwd=tmp_path)
    assert process.wait() == 2
    assert message in process.said
