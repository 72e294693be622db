"""Holding trials: which remedies are tried, and which one is applied."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from grad_callbacks._utils.compiled import has_compiled_part
from grad_callbacks.events import NONE, Alert, Intervention, TrialResult, kind_named
from grad_callbacks.measurement import Gauge, is_alone
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.remedies import Remedy
from grad_callbacks.treatment.step.pending_step import PendingStep
from grad_callbacks.treatment.trial.batch_buffer import BatchBuffer
from grad_callbacks.treatment.trial.candidate import Candidate, can_go_back, try_candidate
from grad_callbacks.treatment.trial.optimizer_copy import can_be_copied
from grad_callbacks.treatment.trial.replicas import smallest_count
from grad_callbacks.treatment.trial.sandbox import TrialSetup, sandbox_for
from grad_callbacks.treatment.trial.settings import LIMITS, Trial


class Contest:
    """Answers the alerts of one optimizer with what does best in a trial, or as prescribed where none can be held.

    A remedy that proves itself, because it has seen what is wrong, needs no trial.

    Args:
        model: Is trained.
        optimizer: Trains it.
        prescription: Has the remedies.
        gauge: Knows the layers.
        settings: How remedies are tried.
        results: Where the results go; those of the optimizer that are there already count.
        index: The optimizer's index among several.

    Attributes:
        batches: The latest batches.
        skips_next: The next step will be skipped: the winner has gone back, and its gradients may be of other weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        prescription: Prescription,
        gauge: Gauge,
        settings: Trial,
        results: list[TrialResult],
        index: int = 0,
    ) -> None:
        self.batches = BatchBuffer(max(settings.steps, LIMITS.held_out), settings.budget)
        self._model, self._optimizer = model, optimizer
        self._prescription = prescription
        self._gauge = gauge
        self._settings = settings
        self._results = results
        self._index = index
        self.skips_next = False

    def note(self, step: PendingStep) -> None:
        """Keep the batch of a step that has been judged."""
        if step.reading.is_finite:
            self.batches.add(step.batch)

    def skip(self, step: PendingStep) -> None:
        """Skip the first step after going back."""
        if self.skips_next:
            self.skips_next = False
            step.handle.skip()

    def answer(self, alert: Alert, step: PendingStep, loss: float) -> Intervention | None:
        """Hold a trial, and switch on the winner; None if it is none, or if there is nothing to switch on.

        Args:
            alert: Is answered.
            step: The step that raised it.
            loss: Level of the loss before it.
        """
        made = self._prescription.answer_at_sight(alert, step.handle, loss)
        if made is not None:
            return made
        group = self._gauge.replicas
        count = smallest_count(len(self.batches), group, self._gauge.layers.device)
        known = self._model, self._optimizer, self._gauge.layers, group, self._prescription
        setup = TrialSetup(*known, step, alert, loss)
        held = self._hold(setup, count) if count >= LIMITS.held_out and self._is_possible else None
        if held is None:
            return self._prescription.answer(alert, step.handle, loss)
        result, candidates = held
        self._results.append(result)
        if result.winner == NONE:
            return None
        if not result.winner:
            return self._prescription.answer(alert, step.handle, loss)
        candidate = candidates[result.winner]
        made = candidate.engage(self._prescription, alert, step.handle, loss)
        self.skips_next = candidate.goes_back
        if made is not None:
            made.detail["trial"] = f"losses: {result.told}"
        return made

    @property
    def _is_possible(self) -> bool:
        held = sum(result.optimizer == self._index for result in self._results)
        replicates = is_alone() or self._gauge.replicas is not None
        is_compiled = has_compiled_part(self._model)
        return held < self._settings.most and replicates and can_be_copied(self._optimizer) and not is_compiled

    def _hold(self, setup: TrialSetup, count: int) -> tuple[TrialResult, dict[str, Candidate]] | None:
        """Hold a trial; None if the prescription has no answer to try, or if nothing can be tried."""
        if not _is_answered(setup):
            return None
        batches = self.batches.latest(count)
        held_out = batches[:: LIMITS.held_out]
        trained = [batch for place, batch in enumerate(batches) if place % LIMITS.held_out]
        candidates: dict[str, Candidate] = {}
        scores: dict[str, float] = {}
        losses: dict[str, list[float]] = {}
        for candidate in self._candidates(setup):
            tried = try_candidate(candidate, setup, trained, held_out, self._settings.steps)
            if tried is not None:
                candidates[candidate.name] = candidate
                *losses[candidate.name], scores[candidate.name] = tried
        if not scores:
            return None
        # A run whose loss does not rise is well, unless its kind of alert stops the learning.
        is_harmed = kind_named(setup.alert.kind).stops_learning
        bearable = math.nan if is_harmed else setup.loss
        winner = winner_of(scores, self._settings.margin, bearable)
        return TrialResult(setup.alert.step, setup.alert.kind, winner, scores, losses, self._index), candidates

    def _candidates(self, setup: TrialSetup) -> Iterator[Candidate]:
        """None, the remedies for the alert in their order, and one of the others by chance, the same everywhere."""
        yield Candidate()
        key = self._prescription.list_for(setup.alert, setup.step.handle)
        names = [NONE]
        remedies, planned = self._prescription.remedies[key], self._prescription.planned
        usable = [place for place, remedy in enumerate(remedies) if not planned.is_left_out(remedy)]
        prescribed = [Candidate(_new_name(type(remedies[place]).__name__, names), key, place) for place in usable]
        yield from prescribed
        if self._settings.from_snapshot and can_go_back(setup.step.handle):
            for candidate in prescribed:
                if not _begins_elsewhere(remedies[candidate.place]):
                    yield replace(candidate, name=f"{candidate.name} from the snapshot", goes_back=True)
        others = planned.others(key)
        if others:
            key, place = random.Random(setup.alert.step).choice(others)
            name = type(self._prescription.remedies[key][place]).__name__
            yield Candidate(_new_name(f"random: {name}", names), key, place)


def _begins_elsewhere(remedy: Remedy) -> bool:
    """True for a remedy that goes back by itself, or that has something to do at the step at hand only."""
    return remedy.needs_snapshots or remedy.skips_steps


def _new_name(name: str, names: list[str]) -> str:
    same = sum(known.partition(" #")[0] == name for known in names)
    names.append(f"{name} #{same + 1}" if same else name)
    return names[-1]


def _is_answered(setup: TrialSetup) -> bool:
    """True if the prescription would answer the alert: what clipping absorbs needs nothing more."""
    with sandbox_for(setup) as sandbox:
        if sandbox is None:
            return False
        known = setup.alert, sandbox.handle, setup.loss
        return setup.on_all_replicas(lambda: sandbox.prescription.answer(*known)) is not None


def winner_of(scores: Mapping[str, float], margin: float, bearable: float = math.nan) -> str:
    """Return the first name whose score is within ``margin`` of the best; an empty one if no score is finite.

    Args:
        scores: The least invasive first.
        margin: Share of the best score.
        bearable: A score of no remedy that needs none, however well others do.
    """
    finite = {name: score for name, score in scores.items() if math.isfinite(score)}
    if not finite:
        return ""
    if finite.get(NONE, math.inf) <= bearable:
        return NONE
    best = min(finite.values())
    return next(name for name, score in finite.items() if score <= best + margin * abs(best))
