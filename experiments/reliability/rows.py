"""All rows of the table."""

from __future__ import annotations

from experiments.reliability import answers, damage, kills
from experiments.reliability.cases import Row

ROWS: list[Row] = [*kills.ROWS, *damage.ROWS, *answers.ROWS]
