"""A candidate of a trial: a remedy, none, or a random one, for some steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from grad_callbacks.events import NONE, Alert, Intervention
from grad_callbacks.measurement import About, Batch, PendingReading, StepPlan
from grad_callbacks.measurement.sharding import sum_over_processes
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.step import OptimizerStep
from grad_callbacks.treatment.trial.replicas import mean_loss, packed_gradients, take_mean
from grad_callbacks.treatment.trial.sandbox import Sandbox, TrialSetup, sandbox_for

log = logging.getLogger("grad_callbacks")


@dataclass(frozen=True)
class Candidate:
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
    return (
        step.run_state is not None
        and step.run_state.snapshots is not None
        and step.run_state.snapshots.latest() is not None
    )


def _go_back(step: OptimizerStep) -> Mapping[str, Any]:
    """Put the newest healthy snapshot back, and return it."""
    assert step.run_state is not None
    assert step.run_state.snapshots is not None
    entry = step.run_state.snapshots.latest()
    assert entry is not None
    step.run_state.snapshots.restore(entry)
    step.run_state.restarted_from = entry
    return entry


def try_candidate(
    candidate: Candidate, setup: TrialSetup, batches: Sequence[Batch], held_out: Sequence[Batch], steps: int
) -> list[float] | None:
    """Try a candidate, and leave nothing of it behind.

    Args:
        candidate: What is tried.
        setup: Where it begins.
        batches: Are trained on, over and over.
        held_out: Give the score.
        steps: How many steps are taken after the one that raised the alert.

    Returns:
        The training loss of each step, up to the first that is not finite, and at last the score, infinite after such
        a loss; None for a remedy that has nothing to give, or that cannot be tried.
    """
    with sandbox_for(setup) as sandbox:
        if sandbox is None or not _is_engaged(candidate, setup, sandbox):
            return None
        run = _Run(setup, sandbox)
        if candidate.goes_back:
            sandbox.handle.skip()
        run.take(sandbox.handle)
        losses: list[float] = []
        for count, batch in enumerate(islice(cycle(batches), steps)):
            losses.append(run.train(batch, setup.alert.step + 1 + count))
            if not math.isfinite(losses[-1]):
                return [*losses, math.inf]
        return [*losses, run.score(held_out)]


def _is_engaged(candidate: Candidate, setup: TrialSetup, sandbox: Sandbox) -> bool:
    """Apply a candidate's remedy, if it has one, to the first step; False if it has nothing to give."""
    if candidate.place < 0:
        return True
    known = sandbox.prescription, setup.alert, sandbox.handle, setup.loss
    return setup.on_all_replicas(lambda: candidate.engage(*known)) is not None


class _Run:
    """The steps of a candidate.

    What fails on one replica makes its next loss NaN, so that all replicas stop there together.

    Args:
        setup: Where all candidates begin.
        sandbox: Where the steps are taken.
    """

    def __init__(self, setup: TrialSetup, sandbox: Sandbox) -> None:
        self._setup, self._sandbox = setup, sandbox
        self._has_failed = False
        self._packed: Tensor | None = None  # the gradients, to be averaged

    def take(self, step: OptimizerStep) -> None:
        """Let the remedies act, and take the step."""
        with self._failures_noted():
            self._sandbox.prescription.act(step)
            clip_at = self._setup.step.reading.clip_at
            if clip_at is not None:
                step.limit_norm(clip_at)
            step.commit()
            if not step.is_taken:
                self._sandbox.optimizer.step()

    def train(self, batch: Batch, number: int) -> float:
        """Take one step if the loss is finite; return it."""
        for parameter in self._setup.model.parameters():
            parameter.grad = None
        loss = self._loss(batch, is_learned=True)
        if math.isfinite(loss):
            group = self._setup.group
            summed = None if self._packed is None else sum_over_processes(self._packed, group)
            with self._failures_noted():
                if summed is not None:
                    take_mean(self._setup.layers.parameters, summed, dist.get_world_size(group))
                self._step(About(number, loss=torch.tensor(loss)))
        return loss

    def score(self, held_out: Sequence[Batch]) -> float:
        """The mean loss of batches that were not trained on; infinite if it is not finite."""
        torch.manual_seed(self._setup.alert.step)
        score = sum(self._loss(batch) for batch in held_out) / len(held_out)
        return score if math.isfinite(score) else math.inf

    def _step(self, about: About) -> None:
        sandbox = self._sandbox
        plan = StepPlan.of(sandbox.optimizer, sandbox.rate.effective())
        incoming = PendingReading.take(sandbox.motion, plan, about)
        if incoming is not None:
            self.take(OptimizerStep(incoming, sandbox.optimizer, sandbox.rate))
            sandbox.motion.after_step()

    def _loss(self, batch: Batch, is_learned: bool = False) -> float:
        """The loss of a batch, averaged over the replicas; NaN where it cannot be computed."""
        value = math.nan
        with self._failures_noted():
            assert batch.replay is not None
            loss: Tensor = batch.replay()
            if is_learned:
                self._sandbox.prescription.before_backward(loss)
                loss.backward()  # type: ignore[no-untyped-call]
                if self._setup.group is not None:
                    self._packed = packed_gradients(self._setup.layers.parameters)
            value = float(loss.detach())
        return mean_loss(math.nan if self._has_failed else value, self._setup.group, self._setup.layers.device)

    @contextmanager
    def _failures_noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the user's code, or memory; the other replicas wait for what follows
            log.warning("a remedy has failed in a trial: %s", error)
            self._has_failed = True
