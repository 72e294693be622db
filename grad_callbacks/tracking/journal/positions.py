"""How much of a journal each server has."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.journal.format import parse


class Positions:
    """For each server its run's id and how many bytes of the journal it has, in the journal's ``.sent`` file.

    Args:
        journal: The journal's file.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_suffix(".sent")
        self._temporary = journal.with_suffix(".sent~")
        self._states: dict[str, Any] = self._read()

    def of(self, server: str) -> dict[str, Any]:
        """Return what is known of a server; empty for a new one."""
        return dict(self._states.get(server, {}))

    def save(self, server: str, state: Mapping[str, Any]) -> None:
        """Note what a server has; only in memory if the disk is full, then the data is sent a second time later.

        Args:
            server: Its address, without secrets.
            state: ``run_id``, ``offset`` in bytes, ``rejected`` (a count) and ``deferred`` (entries to try again).
        """
        self._states[server] = dict(state)
        with suppress(OSError):
            try:
                self._temporary.write_text(json.dumps(self._states))
                os.replace(self._temporary, self.path)
            except OSError:
                self._temporary.unlink(missing_ok=True)

    def run_ids(self) -> set[str]:
        """Return the ids that servers have given the run."""
        return {str(state["run_id"]) for state in self._states.values() if state.get("run_id")}

    def is_complete(self, end: int) -> bool:
        """True if some server has everything up to this offset."""
        return any(state.get("offset", 0) >= end and not state.get("deferred") for state in self._states.values())

    def remove(self) -> None:
        """Remove the file."""
        for path in (self.path, self._temporary):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            return parse(self.path.read_bytes())
        except OSError:
            return {}
