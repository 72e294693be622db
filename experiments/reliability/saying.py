"""Collects what a user would read: standard output, standard error and the package's log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

LOG = logging.getLogger("grad_callbacks")


@contextmanager
def listening() -> Iterator[io.StringIO]:
    """Collect what is said in the block."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    propagate, LOG.propagate = LOG.propagate, False
    before, LOG.handlers = LOG.handlers, [handler]
    try:
        with redirect_stdout(text), redirect_stderr(text):
            yield text
    finally:
        LOG.propagate, LOG.handlers = propagate, before


def synced(folder: Path, uri: str, *options: str) -> str:
    """Run ``grad-callbacks sync`` on a folder, and return all it says, with its exit status as the last line."""
    from grad_callbacks.tracking.cli import main

    with listening() as text:
        try:
            status = main(["sync", str(folder), "--tracking-uri", uri, *options])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        except Exception as error:
            text.write(f"CRASHED {type(error).__name__}: {error}\n")
            status = 1
    return f"{text.getvalue()}exit status {status}\n"
