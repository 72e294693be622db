"""How far a run may go on before a rule has to judge it again."""

from __future__ import annotations

import math
from typing import NamedTuple


class Leeway(NamedTuple):
    """A promise of a rule: as long as these bounds hold it raises no alert, and is neither active nor near.

    Attributes:
        readings: So many readings from now on, each of them finite and over a whole accumulation window.
        norm: Their global norms are at most this.
        loss: Their losses are at most this, or unknown,
        spare: but for so many of them.
    """

    readings: int = 0
    norm: float = math.inf
    loss: float = math.inf
    spare: int = 0

    def and_of(self, other: Leeway) -> Leeway:
        """Return what both promise."""
        strict, free = (self, other) if self.loss < other.loss else (other, self)
        spare = strict.spare if free.loss == math.inf else min(strict.spare, free.spare)
        return Leeway(min(self.readings, other.readings), min(self.norm, other.norm), strict.loss, spare)


ANY = 1_000_000  # readings: more than are ever taken in together
MOST = 16  # readings: the longest promise about a norm, beside a median that moves meanwhile
NO_LEEWAY = Leeway(0)
ROUNDING = 0.999  # share of a limit that a promise is made for, so that no rounding breaks it
