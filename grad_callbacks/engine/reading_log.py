"""Appends readings to the history, and fills in how far their steps have moved the weights."""

from __future__ import annotations

from grad_callbacks.measurement import Gauge, QuietBlock, Reading
from grad_callbacks.reporting.layer_history import LayerHistory


class ReadingLog:
    """Appends the readings of one optimizer to the history.

    Args:
        history: Of all optimizers.
        gauge: Measures how far steps move the weights, which is known after the step.
    """

    def __init__(self, history: LayerHistory, gauge: Gauge) -> None:
        self._history, self._gauge = history, gauge
        self._last: tuple[int, Reading] | None = None  # with its place in the history

    @property
    def is_shared(self) -> bool:
        """True if other optimizers' readings are appended in turns with these."""
        return self._history.is_shared

    def append(self, reading: Reading) -> None:
        """Append a reading."""
        self._last = self._history.append(reading), reading

    def append_block(self, block: QuietBlock) -> None:
        """Append readings in a row."""
        self._last = self._history.append_block(block), block.latest

    def take_up_motion(self) -> None:
        """Fill in how far the last step has moved the weights, if it was measured and is not known yet."""
        if self._gauge.fetch_update_ratios():
            self.note_motion()

    def note_motion(self) -> None:
        """Fill in the motion that has arrived, with the last reading."""
        if self._last is not None:
            place, reading = self._last
            self._history.set_update_ratios(place, self._gauge.update_ratios.by_layer[reading.layer_present])
