"""How a run ended."""

from __future__ import annotations

import math

import pytest
import torch

from grad_callbacks import Alert, Intervention, Record
from grad_callbacks.events import Severity
from grad_callbacks.treatment.remedies import REMEDIES
from tests.support.helpers import reading


def record_of(
    kind: str,
    remedy: str,
    losses: list[float],
    at: int = 0,
    still: bool = False,
    detail: dict[str, object] | None = None,
) -> Record:
    """A run with one alert before the loss at place ``at``, and one intervention."""
    record = Record()
    for place, loss in enumerate(losses):
        if place == at:
            record.add(Alert(kind, "critical", at, (), "", {}, "", ""))
            cls = REMEDIES[remedy]
            traits = {"clips": cls.clips, "begins_anew": cls.begins_anew}
            record.interventions.append(Intervention(at, remedy, kind, {"steps": 1, **(detail or {})}, **traits))
        record.feed(torch.tensor(loss))
    record.active[0] = [kind] if still else []
    return record


FALLING = [2.4, *(2.3 * 0.97**k for k in range(200))]
CHANCE = [2.4, *(2.3 + 0.02 * math.sin(k) for k in range(100))]


@pytest.mark.parametrize(("losses", "outcome"), [(FALLING, "repaired"), (CHANCE, "unrepaired")])
@pytest.mark.parametrize(
    ("kind", "remedy", "at"),
    [("vanishing", "Reinitialize", 0), ("vanishing", "Warmup", 60), ("exploding", "Rollback", 2)],
)
def test_what_was_wrong_from_the_start_is_repaired_once_the_loss_has_come_down(
    kind: str, remedy: str, at: int, losses: list[float], outcome: str
) -> None:
    assert record_of(kind, remedy, losses, at).outcome == outcome


def test_a_loss_that_never_learned_need_not_after_one_bad_batch() -> None:
    assert record_of("nonfinite", "SkipStep", CHANCE, at=5).outcome == "repaired"


PRE_TRAINING = [2.4 + 1.7 * 0.98**k + 0.05 * math.sin(9 * k) for k in range(300)]  # has come down by a third at 80


@pytest.mark.parametrize(
    ("remedy", "severity", "cause", "detail", "outcome"),
    [
        ("ClipNorm", "warning", "bad batch", {"steps": 1}, "repaired"),
        ("ClipNorm", "warning", "bad batch", {"steps": 100}, "partly repaired"),
        ("ClipNorm", "warning", "learning rate too high", {"steps": 1}, "partly repaired"),
        ("Rollback", "critical", "bad batch", {"steps": 1, "to_step": 75}, "partly repaired"),
    ],
)
def test_what_one_batch_has_not_done_to_the_weights_is_repaired(
    remedy: str, severity: Severity, cause: str, detail: dict[str, object], outcome: str
) -> None:
    record = Record()
    for place, loss in enumerate(PRE_TRAINING):
        if place == 80:
            record.add(Alert("exploding", severity, 80, (), "", {}, cause, ""))
            rewinds = remedy == "Rollback"
            record.interventions.append(Intervention(80, remedy, "exploding", dict(detail), rewinds=rewinds))
        record.feed(torch.tensor(loss))
    assert record.outcome == outcome


def test_large_gradients_that_are_clipped_for_good_are_no_longer_wrong() -> None:
    assert record_of("exploding", "ClipNorm", FALLING, at=50, still=True).outcome == "repaired"
    assert record_of("exploding", "ReduceLR", FALLING, at=50, still=True).outcome == "unrepaired"
    assert record_of("exploding", "ClipNorm", CHANCE, at=0, still=True).outcome == "unrepaired"
    withdrawn = record_of("exploding", "ClipNorm", FALLING, at=50, still=True, detail={"withdrawn_at": 80})
    assert withdrawn.outcome == "unrepaired"


@pytest.mark.parametrize("remedy", ["ClipNorm", "ClipValue", "AdaptiveClip", "AGC"])
@pytest.mark.parametrize("kind", ["vanishing", "nonfinite"])
def test_clipping_bounds_no_other_trouble_than_large_gradients(kind: str, remedy: str) -> None:
    assert record_of(kind, remedy, FALLING, still=True).outcome == "unrepaired"


def test_what_it_knows_of_the_beginning_is_resumed() -> None:
    whole = record_of("vanishing", "Reinitialize", CHANCE)
    resumed = Record()
    resumed.load_state_dict(whole.state_dict())
    assert resumed.state_dict()["losses"] == whole.state_dict()["losses"]
    assert resumed.outcome == "unrepaired"


@pytest.mark.parametrize(("remedy", "losses"), [("ClipNorm", FALLING), ("ReduceLR", FALLING), ("Warmup", CHANCE)])
def test_interventions_saved_without_their_remedys_traits_count_as_before(remedy: str, losses: list[float]) -> None:
    whole = record_of("exploding", remedy, losses, at=50, still=remedy != "Warmup")
    state = whole.state_dict()
    for entry in state["interventions"]:
        del entry["clips"], entry["begins_anew"]
    resumed = Record()
    resumed.load_state_dict(state)
    assert resumed.interventions == whole.interventions
    assert resumed.outcome == whole.outcome


def quiet(losses: list[float], optimizers: int = 1) -> Record:
    """A run without an alert."""
    record = Record()
    record.readings.append(reading())
    for loss in losses:
        for index in range(optimizers):
            record.feed(torch.tensor(loss), index)
    return record


@pytest.mark.parametrize(
    ("losses", "optimizers", "verdict", "outcome"),
    [
        (FALLING, 1, "healthy", "healthy"),
        ([*[2.3] * 5, *[4.0] * 100], 1, "no progress", "unrepaired"),
        ([2.3] * 100, 1, "no progress", "unrepaired"),
        ([2.3] * 99, 1, "healthy", "healthy"),  # too early to say
        ([2.3] * 100, 2, "healthy", "healthy"),  # adversaries need not come down
        ([-0.1, 0.1] * 60, 1, "healthy", "healthy"),  # a policy gradient
        ([-2.0 - 0.01 * k for k in range(100)], 1, "healthy", "healthy"),
        ([], 1, "healthy", "healthy"),  # the loss is unknown
    ],
)
def test_a_run_that_has_learned_nothing_is_not_healthy(
    losses: list[float], optimizers: int, verdict: str, outcome: str
) -> None:
    record = quiet(losses, optimizers)
    assert (record.verdict, record.outcome) == (verdict, outcome)
    if verdict == "no progress":
        assert f"not come down: 2.3 at the start, {losses[-1]:.3g} at the end" in record.report()


def test_before_the_first_reading_nothing_is_measured() -> None:
    record = Record()
    assert (record.verdict, record.outcome) == ("not measured", "not measured")
    assert "trainer.callbacks" in record.report()
