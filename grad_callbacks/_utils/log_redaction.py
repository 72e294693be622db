"""Redact notification addresses, which are secrets, from the logs of other libraries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NOTHING = logging.CRITICAL + 1  # a level that no log record reaches
_APPRISE = "apprise"
_SOURCES = (_APPRISE, "urllib3.connectionpool", "urllib3.util.retry")  # the latter two log paths, at any level


class _AddressFilter(logging.Filter):
    """Drops records that may contain an address, while a :func:`redacted_logs` block is active.

    A channel may send from threads of its own: the thread does not identify the channel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []

    def filter(self, record: logging.LogRecord) -> bool:
        levels = list(self.levels)
        return not levels or (record.name == _APPRISE and record.levelno >= max(levels))


_FILTER = _AddressFilter()


@contextmanager
def redacted_logs(level: int = logging.WARNING) -> Iterator[None]:
    """Log no address within the block, whatever level the program logs at.

    Args:
        level: Apprise's records from this level on are kept. Its warnings about failed sends contain no address; its
            errors about addresses that it cannot parse do.
    """
    for name in _SOURCES:
        logging.getLogger(name).addFilter(_FILTER)
    _FILTER.levels.append(level)
    try:
        yield
    finally:
        _FILTER.levels.remove(level)
