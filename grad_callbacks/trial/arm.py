"""One arm of a trial: a remedy, none, or a random one, for some steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from grad_callbacks.alerts import Alert
from grad_callbacks.diagnosis import Batch
from grad_callbacks.gradients import About, Incoming, Motion, StepPlan
from grad_callbacks.interventions import Intervention
from grad_callbacks.prescription import Prescription
from grad_callbacks.remedies import OptimizerStep
from grad_callbacks.trial.result import NONE
from grad_callbacks.trial.stage import Stage, Start, staged
from grad_callbacks.trial.together import average_gradients, mean_loss


@dataclass(frozen=True)
class Arm:
    """What is tried.

    Attributes:
        name: The remedy's name.
        key: The list of the prescription that it is in.
        place: Its place there; -1 for no remedy.
        goes_back: It begins at the newest healthy snapshot.
    """

    name: str = NONE
    key: str = ""
    place: int = -1
    goes_back: bool = False

    def engage(self, prescription: Prescription, alert: Alert, step: OptimizerStep, loss: float) -> Intervention | None:
        """Apply it to a step, of a trial or of the run; None if it is no remedy or has nothing to give."""
        if self.place < 0:
            return None
        entry = _go_back(step) if self.goes_back else None
        made = prescription.answer(alert, step, loss, self.place - 1, self.place, self.key)
        if made is not None and entry is not None:
            made.detail["to_step"] = entry["step"]
        return made


def can_go_back(step: OptimizerStep) -> bool:
    """True if there is a healthy snapshot."""
    return step.scene is not None and step.scene.snapshots is not None and step.scene.snapshots.latest() is not None


def _go_back(step: OptimizerStep) -> Mapping[str, Any]:
    """Put the newest healthy snapshot back, and return it."""
    assert step.scene is not None
    assert step.scene.snapshots is not None
    entry = step.scene.snapshots.latest()
    assert entry is not None
    step.scene.snapshots.restore(entry)
    step.scene.began_anew = entry
    return entry


def play(arm: Arm, start: Start, batches: Sequence[Batch], held_out: Sequence[Batch], steps: int) -> list[float] | None:
    """Try an arm, and leave nothing of it behind.

    Args:
        arm: What is tried.
        start: Where it begins.
        batches: Are trained on, over and over.
        held_out: Tell the score.
        steps: How many steps are taken after the one that raised the alert.

    Returns:
        The training loss of each step, up to the first that is not finite, and at last the score, infinite after such
        a loss; None for a remedy that has nothing to give.
    """
    with staged(start) as stage:
        made = arm.engage(stage.prescription, start.alert, stage.handle, start.loss)
        if made is None and arm.place >= 0:
            return None
        if arm.goes_back:
            stage.handle.skip()
        _take(stage, stage.handle, start.step.reading.clip_at)
        losses: list[float] = []
        motion = Motion(start.layers)
        for count, batch in enumerate(islice(cycle(batches), steps)):
            losses.append(_train(stage, start, motion, batch, start.alert.step + 1 + count))
            if not math.isfinite(losses[-1]):
                return [*losses, math.inf]
        return [*losses, _score(start, held_out)]


def _train(stage: Stage, start: Start, motion: Motion, batch: Batch, number: int) -> float:
    """Take one step; return its loss."""
    for parameter in start.model.parameters():
        parameter.grad = None
    loss = _loss(start, batch, stage.prescription)
    average_gradients(start.layers.parameters, start.group)
    plan = StepPlan.of(stage.optimizer, stage.rate.effective())
    incoming = Incoming.take(motion, plan, About(number, loss=torch.tensor(loss)))
    if incoming is not None:
        _take(stage, OptimizerStep(incoming, stage.optimizer, stage.rate), start.step.reading.clip_at)
        motion.after_step()
    return loss


def _take(stage: Stage, step: OptimizerStep, clip_at: float | None) -> None:
    stage.prescription.act(step)
    if clip_at is not None:
        step.limit_norm(clip_at)
    step.commit()
    if not step.is_taken:
        stage.optimizer.step()


def _score(start: Start, held_out: Sequence[Batch]) -> float:
    torch.manual_seed(start.alert.step)
    score = sum(_loss(start, batch) for batch in held_out) / len(held_out)
    return score if math.isfinite(score) else math.inf


def _loss(start: Start, batch: Batch, prescription: Prescription | None = None) -> float:
    """The loss of a batch, averaged over the replicas; NaN where it cannot be computed.

    Args:
        start: Where all arms begin.
        batch: Gives the loss.
        prescription: Prepares for the backward pass, which follows; None leaves it at the loss.
    """
    try:
        assert batch.replay is not None
        loss: Tensor = batch.replay()
        if prescription is not None:
            prescription.before_backward(loss)
            loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
    except Exception:  # the user's code; the other replicas wait for what follows
        value = math.nan
    return mean_loss(value, start.group, start.layers.home)
