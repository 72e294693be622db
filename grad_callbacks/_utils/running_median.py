"""The median of the latest numbers, kept in order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice


class RunningMedian:
    """The latest numbers, and their median without sorting them again each time.

    Args:
        size: So many are kept; of more, the oldest go.
        numbers: The first ones, none of them NaN.
    """

    def __init__(self, size: int, numbers: Iterable[float] = ()) -> None:
        self._latest = deque(numbers, maxlen=size)
        self._in_order = sorted(self._latest)

    def __len__(self) -> int:
        return len(self._latest)

    def __iter__(self) -> Iterator[float]:
        """The numbers, oldest first."""
        return iter(self._latest)

    def append(self, number: float) -> None:
        """Add a number that is not NaN."""
        if len(self._latest) == self._latest.maxlen:
            del self._in_order[bisect_left(self._in_order, self._latest[0])]
        self._latest.append(number)
        insort(self._in_order, number)

    def largest_of_last(self, count: int) -> float:
        """The largest of the last ``count`` numbers.

        Raises:
            ValueError: If there is no number.
        """
        return max(islice(reversed(self._latest), count))

    def below_median(self, places: int) -> float:
        """The number so many places below the middle; 0 if there are not as many."""
        place = (len(self._in_order) - 1) // 2 - places
        return self._in_order[place] if place >= 0 else 0.0

    @property
    def median(self) -> float:
        """The middle one, or the mean of the two in the middle.

        Raises:
            IndexError: If there is no number.
        """
        count = len(self._in_order)
        middle = count // 2
        return self._in_order[middle] if count % 2 else (self._in_order[middle - 1] + self._in_order[middle]) / 2
