"""A run resumes with other rules, remedies or settings than in its checkpoint, and says once what was dropped."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from grad_callbacks import GradientGuard, GradientMonitor, Reading, ReduceLR, Rule
from grad_callbacks.events import Alert
from tests.support.helpers import Poisoned, batches, fit, mlp, trainer


class Quiet(Rule):
    kind = "quiet"

    def judge(self, reading: Reading) -> Alert | None:
        return None


def module() -> Poisoned:
    torch.manual_seed(0)
    return Poisoned(mlp(4, 8, 2), factors={13: 1e4, 20: math.nan, 40: 1e4})


def resumed(
    before: GradientMonitor, after: GradientMonitor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> tuple[Any, list[str]]:
    """The Trainer of the second half, and what was said of the resumption."""
    fit(module(), before).save_checkpoint(tmp_path / "half.ckpt")
    caplog.clear()
    caplog.set_level(logging.WARNING, "grad_callbacks")
    run = trainer(after, max_epochs=2)
    run.fit(module(), batches(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    return run, [r.getMessage() for r in caplog.records if r.getMessage().startswith("Resumed")]


def test_other_remedies_start_afresh_and_those_that_are_gone_are_named(tmp_path: Path, caplog: Any) -> None:
    before = GradientGuard({"exploding": [ReduceLR(0.1)], "nonfinite": ["SkipStep", "Rollback"]})
    after = GradientGuard({"exploding": ["ClipNorm"], "nonfinite": ["Rollback", "SkipStep"]})
    _, said = resumed(before, after, tmp_path, caplog)
    assert len(said) == 1
    assert "remedies for 'exploding': ReduceLR dropped; ClipNorm starting afresh" in said[0]
    assert "nonfinite" not in said[0]  # only the order has changed
    assert "with their factor 0.1 on the rate" in said[0]
    assert [made.remedy for made in after.interventions] == ["ReduceLR", "SkipStep", "ClipNorm"]
    assert after.history()["step"].unique().tolist() == list(range(64))


def test_what_a_dropped_remedy_had_taken_from_the_rate_is_given_back(tmp_path: Path, caplog: Any) -> None:
    class Rates(Poisoned):
        used: list[float]

        def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
            engine = next(iter(after._engines), None)
            if engine is not None:
                self.used.append(engine.learning_rate.scale)

    fit(module(), GradientGuard({"exploding": [ReduceLR(0.1)]})).save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(0)
    after, second = GradientGuard({"nonfinite": ["SkipStep"]}), Rates(mlp(4, 8, 2), factors={})
    second.used = []
    trainer(after, max_epochs=2).fit(second, batches(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert second.used
    assert set(second.used) == {1.0}


@pytest.mark.parametrize("guard", [True, False])
def test_other_rules_start_afresh(guard: bool, tmp_path: Path, caplog: Any) -> None:
    cls = GradientGuard if guard else GradientMonitor
    after = cls(rules=["NonFinite", "Exploding", Quiet()])
    _, said = resumed(cls(), after, tmp_path, caplog)
    assert len(said) == 1
    assert "rules: Outlier, SaturatedAttention, Vanishing dropped; Quiet starting afresh" in said[0]
    assert after.alerts[0].step == 13


def test_another_stride_goes_on(tmp_path: Path, caplog: Any) -> None:
    after = GradientGuard(every_n_steps=2)
    _, said = resumed(GradientGuard(), after, tmp_path, caplog)
    assert said == ["Resumed with other settings than were saved: every_n_steps 2, was 1"]
    steps = after.history()["step"].unique().tolist()
    assert steps[:32] == list(range(32))
    assert len(after.alerts) >= 2


def test_a_guard_goes_on_from_a_monitor_and_a_monitor_from_a_guard(tmp_path: Path, caplog: Any) -> None:
    after: GradientMonitor = GradientGuard()
    _, said = resumed(GradientMonitor(), after, tmp_path, caplog)
    assert said == []
    assert after.history()["step"].min() == 0
    after = GradientMonitor()
    _, said = resumed(GradientGuard(), after, tmp_path, caplog)
    assert said == ["Resumed with other settings than were saved: no prescription any more: all remedies dropped"]
    assert after.history()["step"].min() == 0


def test_two_monitors_each_go_on_from_their_own(tmp_path: Path, caplog: Any) -> None:
    fit(module(), GradientMonitor(), GradientMonitor(every_n_steps=3)).save_checkpoint(tmp_path / "half.ckpt")
    caplog.clear()
    first, second = GradientMonitor(every_n_steps=3), GradientMonitor()
    run = trainer(first, second, max_epochs=2)
    run.fit(module(), batches(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert first.history()["step"].unique().tolist()[:3] == [0, 3, 6]
    assert second.history()["step"].unique().tolist() == list(range(64))
    assert not [record for record in caplog.records if record.getMessage().startswith("Resumed")]
