"""Checkpoints of other versions: those that can be read resume, the others are refused in one line.

``data/guard_without_version.ckpt.gz`` was written by the code at commit cc7b3f4, before the state had a version, and
compressed with ``gzip -n9``::

    torch.manual_seed(0)
    guard = GradientGuard()
    run = fit(Poisoned(mlp(4, 3, 2), factors={13: 1e4, 20: math.nan, 40: math.nan}), guard)
    run.save_checkpoint("guard_without_version.ckpt")
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from grad_callbacks import GradientGuard, GradientMonitor, __version__
from grad_callbacks.callbacks._checkpoint import FORMAT
from tests.support.helpers import Poisoned, batches, fit, mlp, trainer

STORED = Path(__file__).parent / "data" / "guard_without_version.ckpt.gz"


def module() -> Poisoned:
    torch.manual_seed(0)
    return Poisoned(mlp(4, 3, 2), factors={13: 1e4, 20: math.nan, 40: math.nan})


def resume(callback: GradientMonitor, path: Path) -> None:
    trainer(callback, max_epochs=2).fit(module(), batches(), ckpt_path=path, weights_only=True)


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the guard's state in a checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    [state] = (state for key, state in checkpoint["callbacks"].items() if key.startswith("GradientGuard"))
    change(state)
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def early(tmp_path: Path) -> Path:
    path = tmp_path / "early.ckpt"
    path.write_bytes(gzip.decompress(STORED.read_bytes()))
    return path


@pytest.fixture(scope="module")
def written_now(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("now") / "present.ckpt"
    fit(module(), GradientGuard()).save_checkpoint(path)
    return path.read_bytes()


@pytest.fixture
def present(tmp_path: Path, written_now: bytes) -> Path:
    path = tmp_path / "present.ckpt"
    path.write_bytes(written_now)
    return path


def test_a_checkpoint_without_a_version_resumes(early: Path) -> None:
    guard = GradientGuard()
    resume(guard, early)
    assert [(alert.kind, alert.step) for alert in guard.alerts][:2] == [("exploding", 13), ("nonfinite", 20)]
    made = [(made.remedy, made.step) for made in guard.interventions]
    assert made[:3] == [("ClipNorm", 13), ("AdaptiveStep", 13), ("SkipStep", 20)]
    assert any(made.detail["steps"] > 1 for made in guard.interventions if made.remedy == "SkipStep")
    assert guard.history()["step"].unique().tolist() == list(range(64))


def test_it_resumes_as_if_it_had_not_been_stopped(early: Path) -> None:
    whole, resumed = GradientGuard(), GradientGuard()
    fit(module(), whole, max_epochs=2)
    resume(resumed, early)
    assert [(alert.kind, alert.step) for alert in resumed.alerts] == [
        (alert.kind, alert.step) for alert in whole.alerts
    ]
    assert [(made.remedy, made.step, made.detail["steps"]) for made in resumed.interventions] == [
        (made.remedy, made.step, made.detail["steps"]) for made in whole.interventions
    ]


def test_a_state_says_which_version_wrote_it(present: Path) -> None:
    def check(state: dict[str, Any]) -> None:
        assert (state["version"], state["format"]) == (__version__, FORMAT)

    changed(present, check)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.update(format=FORMAT + 1, version="9.1"), "newer than format 1 of this version"),
        (lambda state: state.pop("engines"), "it has no engines"),
        (lambda state: state.pop("record"), "it has no record"),
        (lambda state: state["record"].pop("history"), "it has no 'history'"),
        (lambda state: state["engines"][0].pop("gauge"), "the state of the engine has no 'gauge'"),
        (lambda state: state["record"].update(alerts=3), "TypeError: 'int' object is not iterable"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], reason: str, present: Path
) -> None:
    path = changed(present, lambda state: (state.update(version="9.1"), change(state)))
    with pytest.raises(ValueError, match=r"^GradientGuard cannot read its state in the checkpoint") as caught:
        resume(GradientGuard(), path)
    text = str(caught.value)
    assert "\n" not in text
    assert f"written by grad-callbacks 9.1 (this is {__version__})" in text
    assert reason in text
    assert "resume with that version" in text


def test_a_state_without_a_version_is_refused_as_an_early_one(early: Path) -> None:
    path = changed(early, lambda state: state.pop("record"))
    with pytest.raises(ValueError, match="written by an early grad-callbacks without a version"):
        resume(GradientGuard(), path)
