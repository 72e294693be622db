"""Trainings that take turns: each in a thread of its own, of which only one runs at a time, for one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.bench.timing import interleave, now

Fit = Callable[[list[Callback]], object]


class Paced(Callback):
    """A training that goes on when it is told to, each time with other callbacks in its Trainer.

    Everything between the start of one step and the start of the next is timed: loop, data, training step,
    optimizer and callbacks. The variants share one model and one Trainer, because two copies of the same model
    differ by some percent in speed, for reasons of where their memory lies.

    Args:
        fit: Trains endlessly with the callbacks it is given.
        variants: Callbacks by the name of the variant. All of them see the training start and end.
        clock: Tells the time in seconds.
    """

    def __init__(self, fit: Fit, variants: Mapping[str, Sequence[Callback]], clock: Callable[[], float] = now) -> None:
        super().__init__()
        self.variants = variants
        self._fit = fit
        self._clock = clock
        # A callback may serve several variants.
        self._all = list(
            dict.fromkeys([self, *(callback for callbacks in variants.values() for callback in callbacks)])
        )
        self._orders: SimpleQueue[str | None] = SimpleQueue()  # None: stop
        self._answers: SimpleQueue[float | BaseException | None] = SimpleQueue()
        self._started = 0.0
        self._thread: Thread | None = None

    def advance(self, variant: str) -> float:
        """Train one step with the callbacks of a variant and return its seconds.

        Raises:
            RuntimeError: If the training failed or ended by itself.
        """
        if self._thread is None:
            self._thread = Thread(target=self._run, daemon=True)
            self._thread.start()
        self._orders.put(variant)
        answer = self._answers.get()
        if not isinstance(answer, float):
            raise RuntimeError("the training ended") from answer
        return answer

    def stop(self) -> None:
        """Let the training end in its own way, and wait for it."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Answer with the last step's time, and wait for the next order."""
        if batch_idx:
            self._answers.put(self._clock() - self._started)
        variant = self._orders.get()
        trainer.should_stop = variant is None
        # In place: the Trainer is going through this very list.
        active = self._all if variant is None else [self, *self.variants[variant]]
        trainer.callbacks[:] = active  # type: ignore[attr-defined]  # set by Lightning's callback connector
        self._started = self._clock()

    def _run(self) -> None:
        torch.set_num_threads(1)  # is each thread's own
        try:
            self._fit(list(self._all))
        except BaseException as error:
            self._answers.put(error)
        else:
            self._answers.put(None)


def alternate(trainings: Sequence[Paced], rounds: int, steps: int, warmup: int) -> dict[str, list[float]]:
    """Train all variants of all trainings in turns.

    Args:
        trainings: The names of their variants must differ.
        rounds: Number of rounds.
        steps: Steps of each variant in a round.
        warmup: Steps of each variant before the first round.

    Returns:
        For each variant the seconds per step, one number per round.
    """
    turns = {name: partial(training.advance, name) for training in trainings for name in training.variants}
    times = interleave(turns, lambda turn: turn(), rounds, steps, warmup)
    for training in trainings:
        training.stop()
    return times
