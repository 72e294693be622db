"""Show the package's own log lines on the console, as Lightning does with its own."""

from __future__ import annotations

import logging
import sys

LOGGER = logging.getLogger("grad_callbacks")


class _Console(logging.Handler):
    """Writes to stderr, unless the program has set up logging: the root logger's handlers have the line then."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:
            return
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # a closed stream costs a line, not the training
            self.handleError(record)


def show_info() -> None:
    """Let lines of level INFO be seen; a level or a handler that the user has set for the logger stays as it is."""
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    if not LOGGER.handlers:
        LOGGER.addHandler(_Console())
