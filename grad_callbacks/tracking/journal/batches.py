"""Which of a journal's entries go to the server in the next request."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlflow.entities import Metric

from grad_callbacks.tracking.journal.damage import Damage
from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.sendable import Refused, has_kind, metrics_of, sendable

# Of one request. MLflow takes up to 1000 values, among them 100 parameters and 100 tags, and 1 MB.
MAX_METRICS = 900
MAX_PARAMS = 50
MAX_TAGS = 50
MAX_BYTES = 400_000  # of the journal's lines


@dataclass
class Batch:
    """Consecutive entries that one request can carry.

    Attributes:
        count: Number of entries, including those without anything to send.
        offset: The offset in the journal at which they end; None for entries in memory.
        metrics: Of all entries.
        params: Of all entries, by name.
        tags: Of all entries, by name.
        single: An entry that needs a request of its own.
        refused: Values that no server can store.
        damage: What was damaged among the lines.
        memory: The entries that were taken from memory.
    """

    damage: Damage
    count: int = 0
    offset: int | None = None
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    single: Entry | None = None
    refused: list[Refused] = field(default_factory=list)
    memory: list[Entry] = field(default_factory=list)

    def takes(self, entry: Entry, size: int) -> bool:
        """Add an entry; False if it has to wait for the next batch.

        Args:
            entry: The next one.
            size: Bytes of the batch with this entry.
        """
        if "id" in entry or not has_kind(entry):
            return True
        whole, refused = sendable(entry)
        if not whole.keys() & {"m", "p", "g"} or "run" in whole:
            if whole and self.count:
                return False
            self.single = whole or None
            self.refused += refused
            return True
        metrics, params, tags = metrics_of(whole), whole.get("p", {}), whole.get("g", {})
        if self.count and (
            size > MAX_BYTES
            or len(self.metrics) + len(metrics) > MAX_METRICS
            or len(self.params.keys() | params.keys()) > MAX_PARAMS
            or len(self.tags.keys() | tags.keys()) > MAX_TAGS
            or any(self.params.get(name, value) != value for name, value in params.items())
        ):
            return False
        self.metrics += metrics
        self.params |= params
        self.tags |= tags
        self.refused += refused
        return True


def next_batch(journal: Journal, start: int, expected: int | None = None) -> Batch:
    """Return the entries after an offset, or else those in memory; the count is 0 if there are none.

    Args:
        journal: Where they are.
        start: The offset.
        expected: The number of the first of them, if it is known.
    """
    batch, size = Batch(Damage(expected), offset=start), 0
    begin = start
    for line in journal.lines(start):
        size, begin = size + line.end - begin, line.end
        if line.entry is None:
            batch.damage.see(line)  # counted with the next line: only that one shows how many are missing
            continue
        if not batch.takes(line.entry, size):
            batch.damage.forget_open()
            return batch
        batch.damage.see(line)
        batch.count, batch.offset = batch.count + 1, line.end
        if batch.single is not None:
            return batch
    if batch.damage.is_open:
        batch.damage.close()
        batch.count, batch.offset = batch.count + 1, begin
    if batch.count:
        return batch
    batch.offset = None
    for entry, length in journal.in_memory():
        size += length
        if not batch.takes(entry, size):
            return batch
        batch.count += 1
        batch.memory.append(entry)
        if batch.single is not None:
            return batch
    return batch
