"""What is said on the console at the start and at the end of a training, on rank zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from grad_callbacks._utils.console import LOGGER, show_info
from grad_callbacks._utils.lightning import Trainer
from grad_callbacks.callbacks._loggers import places
from grad_callbacks.callbacks._progress_bar import ProgressBarNumbers
from grad_callbacks.engine.engine import Engine
from grad_callbacks.reporting.closing import closing_lines
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_result import StepResult
from grad_callbacks.reporting.summary import count


class Console:
    """Says at the start what is watched, shows the norm in the progress bar, and says at the end how it went.

    Args:
        name: Of the callback.
        progress_bar: Show the norm, and the kind of the first alert, in the progress bar.
        summary: Say how it went.
    """

    def __init__(self, name: str, progress_bar: bool, summary: bool) -> None:
        self._name = name
        self._summary = summary
        self._bar = ProgressBarNumbers() if progress_bar else None
        self._is_open = False  # the start was said, the end was not

    def begin(self, trainer: Trainer, engines: Iterable[Engine], settings: str, found: Callable[[], str]) -> None:
        """Say what is watched.

        Args:
            trainer: Starts training.
            engines: Of the training.
            settings: Rules and remedies, in words.
            found: Returns what was found so far, without waiting for a device.
        """
        if self._bar is not None:
            self._bar.begin(trainer, found)
        if not trainer.is_global_zero or self._is_open:
            return
        self._is_open = True
        show_info()
        layers = sum(len(engine.gauge.layers.names) for engine in engines)
        LOGGER.info(f"{self._name}: {count(layers, 'layer')} watched; {settings}; {places(trainer)}")

    def note(self, index: int, result: StepResult) -> None:
        """Take in what happened at a step of an optimizer."""
        if self._bar is not None:
            self._bar.note(index, result)

    def close_bar(self) -> None:
        """Leave the progress bar as it was."""
        if self._bar is not None:
            self._bar.end()

    def end(self, record: Record, places: Iterable[str]) -> None:
        """Say once how it went, below the progress bar.

        Args:
            record: Of the run.
            places: Where the report was written to.
        """
        if self._is_open and self._summary:
            report = "; ".join(places) or "call report() on the callback"
            LOGGER.info(f"{self._name}: " + "\n  ".join(closing_lines(record, report)))
        self._is_open = False
