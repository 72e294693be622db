"""All rows of the table."""

from __future__ import annotations

from experiments.reliability import answers, damage, disk, hostile, kills, old_server, poison, sharing
from experiments.reliability.cases import Row

_PARTS = (kills, damage, answers, disk, sharing, poison, hostile, old_server)
ROWS: list[Row] = [row for part in _PARTS for row in part.ROWS]
