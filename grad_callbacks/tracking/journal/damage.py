"""How many entries of a journal are missing, and which: damaged lines are seen by their checksums and numbers."""

from __future__ import annotations

from grad_callbacks.tracking.journal.format import Line

LONGEST_LIST = 20  # places that are remembered of one journal


class Damage:
    """Counts the entries that are missing among the lines it is shown.

    Args:
        expected: The number of the next entry; None if it is not known, or lines have no numbers (format 1).

    Attributes:
        expected: The same after the lines that were seen.
        lost: How many entries are missing.
        lost_at: Which.
        harmless: How many damaged lines held no entry.
    """

    def __init__(self, expected: int | None) -> None:
        self.expected = expected
        self.lost = 0
        self.lost_at: list[str] = []
        self.harmless = 0
        self._open: list[Line] = []

    @property
    def is_open(self) -> bool:
        """True if the last lines were damaged: how many entries they held shows only the next one."""
        return bool(self._open)

    def see(self, line: Line) -> None:
        """Take the next line."""
        if line.entry is None:
            self._open.append(line)
        elif line.number is not None:
            missing = 0 if self.expected is None else line.number - self.expected
            if missing > 0:
                self._add(missing)
            elif self._open and self.expected is None:
                self._add_open()
            else:
                self.harmless += len(self._open)
            self._open = []
            self.expected = max(line.number + 1, self.expected or 0)
        elif self._open and self.expected is None and "opened" not in line.entry:  # of format 1
            self._add_open()

    def close(self) -> None:
        """Count the last lines: the journal ends with them."""
        self._add_open()

    def forget_open(self) -> None:
        """Leave the last damaged lines to the next batch."""
        self._open = []

    def _add_open(self) -> None:
        entries = [line for line in self._open if line.is_entry]
        count = sum(line.size for line in entries) or len(entries)
        self.harmless += len(self._open) - len(entries)
        if count:
            self._add(count)
        if self.expected is not None:
            self.expected += count
        self._open = []

    def _add(self, count: int) -> None:
        first = self.expected
        self.lost += count
        if first is None:
            self.lost_at.append(f"before byte {self._open[0].end}")
        else:
            self.lost_at.append(f"entry {first}" if count == 1 else f"entries {first}-{first + count - 1}")
