"""Keeps the libraries that send messages from logging the addresses, which are secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

SILENCE = logging.CRITICAL + 1
_APPRISE = "apprise"
_TALKERS = (_APPRISE, "urllib3.connectionpool", "urllib3.util.retry")  # those two log paths, at any level


class _Discretion(logging.Filter):
    """Drops what might tell an address, as long as anybody asks for it.

    A channel may send from threads of its own: the thread does not identify the channel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []

    def filter(self, record: logging.LogRecord) -> bool:
        levels = list(self.levels)
        return not levels or (record.name == _APPRISE and record.levelno >= max(levels))


_DISCRETION = _Discretion()


@contextmanager
def discretion(level: int = logging.WARNING) -> Iterator[None]:
    """Log no address within the block, whatever level the program logs at.

    Args:
        level: From here on Apprise may speak. Of a message that fails its warnings tell no address; of an address that
            it cannot read all do.
    """
    for name in _TALKERS:
        logging.getLogger(name).addFilter(_DISCRETION)
    _DISCRETION.levels.append(level)
    try:
        yield
    finally:
        _DISCRETION.levels.remove(level)
