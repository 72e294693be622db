"""Callbacks by an environment variable, through Lightning's entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from grad_callbacks import GradientGuard, GradientMonitor
from grad_callbacks.callbacks._factory import callbacks
from tests.support.helpers import Regression, fit, mlp

tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this tree were installed: its entry points are found."""
    entries = PROJECT["entry-points"]["lightning.pytorch.callbacks_factory"]
    points = [EntryPoint(name, value, "") for name, value in entries.items()]
    monkeypatch.setattr("lightning.fabric.utilities.registry.entry_points", lambda group: points)


def ours(trainer: Trainer) -> list[Callback]:
    return [each for each in trainer.callbacks if isinstance(each, GradientMonitor)]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("wanted", "cls"), [("monitor", GradientMonitor), ("Guard", GradientGuard)])
def test_the_variable_adds_one_to_every_trainer(wanted: str, cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAD_CALLBACKS", wanted)
    [made] = ours(fit(Regression(mlp(4, 8, 2))))
    assert isinstance(made, cls)
    assert isinstance(made, GradientGuard) == (cls is GradientGuard)
    assert made.verdict == "healthy"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("wanted", [None, "", " "])
def test_without_it_nothing_is_added(wanted: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAD_CALLBACKS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("GRAD_CALLBACKS", wanted)
    assert ours(fit(Regression(mlp(4, 8, 2)))) == []


@pytest.mark.usefixtures("installed")
def test_another_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAD_CALLBACKS", "gard")
    with pytest.raises(ValueError, match=r"\$GRAD_CALLBACKS must be monitor or guard, or not be set, got 'gard'"):
        Trainer(accelerator="cpu")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("own", [GradientMonitor, GradientGuard])
@pytest.mark.parametrize("wanted", ["monitor", "guard"])
def test_it_gives_way_to_the_programs_own(wanted: str, own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAD_CALLBACKS", wanted)
    mine = own()
    run = fit(Regression(mlp(4, 8, 2)), mine)
    assert ours(run) == [mine]
    assert mine.verdict == "healthy"


def test_both_trainers_are_served_and_the_entry_is_there() -> None:
    for group in ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory"):
        [value] = PROJECT["entry-points"][group].values()
        module, _, name = value.partition(":")
        assert getattr(import_module(module), name) is callbacks
