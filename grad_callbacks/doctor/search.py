"""The doctor: trains, says what is wrong, and tries cures within a budget."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from grad_callbacks._utils.validation import at_least, positive
from grad_callbacks.doctor.attempt import Attempt, Order, carry_out, release_memory
from grad_callbacks.doctor.choosing import cures_for, pairs_of
from grad_callbacks.doctor.cures import Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.judging import is_better, is_cured, needs_cure, ranked
from grad_callbacks.doctor.recording import Place
from grad_callbacks.doctor.setup import Source

PAIRS = 0.375  # share of the trials that is kept for pairs
TIME_SHARE = 0.25  # of all the time, that one training may take at most

Choose = Callable[[Attempt], tuple[list[Cure], list[str]]]


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Args:
        trials: Cures, or pairs of them, that are tried at most.
        minutes: Time for all.
        steps: Optimizer steps of one training.
        workers: Processes that train side by side; with 1 it is this one.
        seeds: Seeds of the training as it is and of the best cure, together; the first is that of the search.

    Raises:
        ValueError: If one is not above 0.
    """

    trials: int = 8
    minutes: float = 20.0
    steps: int = 300
    workers: int = 1
    seeds: int = 1

    def __post_init__(self) -> None:
        for name in ("trials", "steps", "workers", "seeds"):
            at_least(name, getattr(self, name), 1)
        positive("minutes", self.minutes)


@dataclass
class Outcome:
    """What came of a search.

    Attributes:
        ill: The training as it is.
        tried: The trials, in the order in which they ended.
        best: The best of them; None where nothing was to be cured, or nothing did better.
        is_cured: The best is healthy and has learned.
        refused: What was not tried, and why.
        others: The training as it is and the best cure with other seeds, in pairs.
        seconds: It took, this time.
    """

    ill: Attempt
    tried: list[Attempt] = field(default_factory=list)
    best: Attempt | None = None
    is_cured: bool = False
    refused: list[str] = field(default_factory=list)
    others: list[tuple[Attempt, Attempt]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_healthy(self) -> bool:
        """Nothing is to be cured."""
        return not needs_cure(self.ill) and self.ill.verdict != "not measured"


class Doctor:
    """Tries cures on copies of a training that are made anew, one by one and then in pairs.

    Each finished trial is a file in ``folder``: a second doctor with the same folder goes on where the first was
    stopped.

    Args:
        source: Makes the training.
        budget: What may be spent.
        folder: Of the results.
        seed: Of all random numbers.
        place: Where runs are logged, if anywhere.
        say: Is given a line when something has ended.
        choose: Which cures, in which order.
    """

    def __init__(
        self,
        source: Source,
        budget: Budget,
        folder: Path,
        seed: int = 0,
        place: Place | None = None,
        say: Callable[[str], object] = lambda line: None,
        choose: Choose = cures_for,
    ) -> None:
        self.source, self.budget, self.folder, self.seed = source, budget, folder, seed
        self._place, self._say, self._choose = place, say, choose
        self._deadline = 0.0
        self._described = source.describe()
        self._cures: dict[str, tuple[Cure, ...]] = {}

    def search(self) -> Outcome:
        """Train, and try cures if something is wrong.

        Raises:
            ValueError: If the training cannot be made, or fails before its first step.
        """
        started = time.monotonic()
        self._deadline = started + 60 * self.budget.minutes
        self.folder.mkdir(parents=True, exist_ok=True)
        ill = self._of(Order((), self.seed, self.budget.steps, self._seconds), Inspection())
        if ill.error and ill.steps == 0:
            raise ValueError(f"the training fails before its first step: {ill.error}")
        outcome = Outcome(ill)
        self._say(f"as it is ({ill.steps} steps, {ill.seconds:.0f} s): {_found(ill)}")
        if needs_cure(ill):
            cures, outcome.refused = self._choose(ill)
            for line in outcome.refused:
                self._say(line)
            self._try(outcome, cures)
            best = next(iter(ranked(outcome.tried, ill)), None)
            outcome.is_cured = best is not None and is_cured(best, ill)
            outcome.best = best if best is not None and is_better(best, ill) else None
            self._confirm(outcome)
        outcome.seconds = time.monotonic() - started
        return outcome

    def _try(self, outcome: Outcome, cures: Sequence[Cure]) -> None:
        """Try single cures, then pairs, until one has cured or the budget is spent."""
        trials = self.budget.trials
        singles = min(len(cures), max(1, trials - int(PAIRS * trials)))
        self._run(outcome, [(cure,) for cure in cures[:singles]])
        if not any(is_cured(attempt, outcome.ill) for attempt in outcome.tried):
            done = [(self._cures[attempt.name][0], attempt) for attempt in ranked(outcome.tried, outcome.ill)]
            self._run(outcome, list(islice(pairs_of(done, outcome.ill), max(0, trials - singles))))

    def _run(self, outcome: Outcome, plans: Sequence[tuple[Cure, ...]]) -> None:
        orders = []
        for plan in plans:
            order = Order(plan, self.seed, max(1, outcome.ill.steps or self.budget.steps), self._seconds)
            self._cures[order.name] = plan
            orders.append(order)
        for attempt in self._attempts(orders, outcome.ill.inspection):
            outcome.tried.append(attempt)
            cured = is_cured(attempt, outcome.ill)
            number, end = f"trial {len(outcome.tried)} of {self.budget.trials}", "; cured" if cured else ""
            self._say(f"{number}, {attempt.name} ({attempt.seconds:.0f} s): {_found(attempt)}{end}")
            if cured:
                return

    def _confirm(self, outcome: Outcome) -> None:
        """Train the run as it is and its best cure with other seeds."""
        if outcome.best is None:
            return
        known = outcome.ill.inspection
        for seed in range(self.seed + 1, self.seed + self.budget.seeds):
            plans = ((), self._cures[outcome.best.name])
            pair = [self._of(Order(plan, seed, outcome.ill.steps, self._seconds), known) for plan in plans]
            outcome.others.append((pair[0], pair[1]))
            self._say(f"seed {seed}: as it is {_found(pair[0])}; {outcome.best.name}: {_found(pair[1])}")

    @property
    def _seconds(self) -> float:
        return 60 * self.budget.minutes * TIME_SHARE

    def _attempts(self, orders: Sequence[Order], known: Inspection) -> Iterator[Attempt]:
        """Carry out orders, those side by side that there are workers for; none is begun once the time is up."""
        if self.budget.workers == 1:
            for order in orders:
                if time.monotonic() < self._deadline:
                    yield self._of(order, known)
            return
        context = multiprocessing.get_context("spawn")
        threads = max(1, (os.cpu_count() or 1) // self.budget.workers)
        pool = ProcessPoolExecutor(self.budget.workers, context, torch.set_num_threads, (threads,))
        waiting, running = list(orders), set[Future[Attempt]]()
        try:
            while waiting or running:
                while waiting and len(running) < self.budget.workers and time.monotonic() < self._deadline:
                    order = waiting.pop(0)
                    path = self._path(order)
                    running.add(pool.submit(_finished, self.source, order, known, self._place, path))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for process in list((pool._processes or {}).values()):
                process.terminate()  # a trial that nobody waits for any more
            pool.shutdown(wait=True, cancel_futures=True)

    def _of(self, order: Order, known: Inspection) -> Attempt:
        return _finished(self.source, order, known, self._place, self._path(order))

    def _path(self, order: Order) -> Path:
        told = {
            "source": self._described,
            "cures": [[type(cure).__name__, cure.name] for cure in order.cures],
            "seed": order.seed,
            "steps": order.steps,
        }
        key = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return self.folder / f"trial-{key}.json"


def _finished(source: Source, order: Order, known: Inspection, place: Place | None, path: Path) -> Attempt:
    """Return what lies in the file, or carry out the order and write it there."""
    if path.exists():
        return Attempt.from_json(path.read_text())
    attempt = carry_out(source, order, known, place)
    release_memory()
    partial = path.with_suffix(".part")
    partial.write_text(attempt.to_json())
    partial.replace(path)
    return attempt


def _found(attempt: Attempt) -> str:
    """Verdict and loss of a training, in words."""
    told = attempt.verdict if not attempt.cause else f"{attempt.verdict}, {attempt.cause}"
    if attempt.error:
        told = f"failed ({attempt.error})"
    return f"{told}; loss {attempt.began:.3g} -> {attempt.ended:.3g}"


def plain_result(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome in plain values."""
    return {**asdict(outcome), "is_healthy": outcome.is_healthy}
