"""Warnings that are told once in a process, however often their reason comes up."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("grad_callbacks")

MAX_REMEMBERED = 10_000  # warnings, some 1 MB; after that many, new ones are told no more
_told: set[tuple[str, str]] = set()


def warn_once(about: object, message: str, *arguments: Any) -> None:
    """Log a warning unless the same one was logged about the same thing.

    Args:
        about: What it is about, such as the name of a metric.
        message: As for ``logging``.
        arguments: For the message.
    """
    key = (message, str(about))
    if key not in _told and len(_told) < MAX_REMEMBERED:
        _told.add(key)
        log.warning(message, *arguments)
