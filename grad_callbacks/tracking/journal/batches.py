"""Which of a journal's entries go to the server in the next request."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlflow.entities import Metric

from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.journal import Journal

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
    """

    count: int = 0
    offset: int | None = None
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    single: Entry | None = None

    def takes(self, entry: Entry, size: int) -> bool:
        """Add an entry; False if it has to wait for the next batch.

        Args:
            entry: The next one.
            size: Bytes of the batch with this entry.
        """
        kinds = entry.keys() & {"m", "p", "g"}
        if not kinds or "run" in entry:
            needs_request = bool(entry.keys() - {"opened", "journal", "t"}) and "id" not in entry
            if needs_request and self.count:
                return False
            self.single = entry if needs_request else None
            return True
        params, tags = entry.get("p", {}), entry.get("g", {})
        if self.count and (
            size > MAX_BYTES
            or len(self.metrics) + len(entry.get("m", {})) > MAX_METRICS
            or len(self.params.keys() | params.keys()) > MAX_PARAMS
            or len(self.tags.keys() | tags.keys()) > MAX_TAGS
            or any(self.params.get(name, value) != value for name, value in params.items())
        ):
            return False
        self.metrics += metrics_of(entry)
        self.params |= params
        self.tags |= tags
        return True


def next_batch(journal: Journal, start: int) -> Batch:
    """Return the entries after the offset ``start``, or else those in memory; the count is 0 if there are none."""
    batch, size = Batch(offset=start), 0
    for entry, offset in journal.entries(start):
        size += offset - (batch.offset or 0)
        if not batch.takes(entry, size):
            return batch
        batch.count, batch.offset = batch.count + 1, offset
        if batch.single is not None:
            return batch
    if batch.count:
        return batch
    batch.offset = None
    for entry, length in journal.in_memory():
        size += length
        if not batch.takes(entry, size):
            return batch
        batch.count += 1
        if batch.single is not None:
            return batch
    return batch


def metrics_of(entry: Entry) -> list[Metric]:
    """Return an entry's metrics as MLflow's objects."""
    more = entry.get("of", {})
    return [Metric(name, value, entry["t"], entry["s"], **more) for name, value in entry.get("m", {}).items()]
