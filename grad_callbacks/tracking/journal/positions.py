"""How much of a journal each server has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.journal.format import parse, to_line

State = dict[str, Any]


class Positions:
    """For each server its run's id and how many bytes of the journal it has, in the journal's ``.sent`` file.

    The file has a checksum, and the state before the last one is kept in ``.sent-1``: if one is damaged, the other
    serves, and a few entries are sent a second time, which changes nothing (see :class:`.requests.Requests`).

    Args:
        journal: The journal's file.

    Attributes:
        problem: What was damaged when the files were read; empty if nothing was.
        is_saved: False if the disk did not take the last state.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_suffix(".sent")
        self._previous = journal.with_suffix(".sent-1")
        self._temporary = journal.with_suffix(".sent~")
        self.problem = ""
        self.is_saved = True
        self._states: dict[str, State] = {}
        self.read()

    def read(self) -> None:
        """Read the files again, as after another process may have written them."""
        self.problem = ""
        newest, previous = _read(self.path), _read(self._previous)
        if newest is None:
            then = "everything is sent again" if previous is None else "the state before it is used"
            self.problem = f"{self.path.name}, which says what was sent, is damaged: {then}, and nothing twice"
        elif not newest and previous:  # ended between two renames
            newest = previous
        self._states = (previous or {}) if newest is None else newest

    def of(self, server: str) -> State:
        """Return what is known of a server; empty for a new one."""
        return dict(self._states.get(server, {}))

    def save(self, server: str, state: Mapping[str, Any]) -> None:
        """Note what a server has; only in memory if the disk is full, then the data is sent a second time later.

        Args:
            server: Its address, without secrets.
            state: ``run_id``, ``offset`` in bytes, ``next`` (the number of the next entry), ``rejected`` and ``lost``
                (counts), ``lost_at`` (texts) and ``deferred`` (entries to try again).
        """
        self._states[server] = dict(state)
        self._write()

    def limit(self, end: int, size: int) -> list[str]:
        """Take back what lies beyond the journal's end, and return the servers that have more than the journal.

        After a power cut a file may be shorter than what was sent of it. What is written from there on is new.

        Args:
            end: Where its last complete line ends.
            size: Where it ends: the server has the incomplete line, too.
        """
        ahead = [server for server, state in self._states.items() if state.get("offset", 0) > end]
        for server in ahead:
            self._states[server] |= {"offset": size, "next": None}
        if ahead:
            self._write()
        return ahead

    def run_ids(self) -> set[str]:
        """Return the ids that servers have given the run."""
        return {str(state["run_id"]) for state in self._states.values() if state.get("run_id")}

    def run_id_of_each(self) -> dict[str, str]:
        """Return for each server the id that it has given the run."""
        return {server: str(state["run_id"]) for server, state in self._states.items() if state.get("run_id")}

    def least(self) -> int:
        """The offset up to which every known server has the journal."""
        return min((int(state.get("offset", 0)) for state in self._states.values()), default=0)

    def deferred_files(self) -> set[str]:
        """Return the copies of artifacts that some server has still to be sent."""
        entries = [entry for state in self._states.values() for entry in state.get("deferred", [])]
        return {str(entry["file"]) for entry in entries if "file" in entry}

    def is_complete(self, end: int) -> bool:
        """True if some server has everything up to this offset."""
        return any(state.get("offset", 0) >= end and not state.get("deferred") for state in self._states.values())

    def remove(self) -> None:
        """Remove the files."""
        for path in (self.path, self._previous, self._temporary):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _write(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self.is_saved = False
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)  # another's link must not be followed
            try:
                with os.fdopen(os.open(self._temporary, flags, 0o600), "wb") as file:
                    file.write(to_line(self._states))
                if self.path.exists() and not self.problem:
                    os.replace(self.path, self._previous)
                os.replace(self._temporary, self.path)
                self.is_saved, self.problem = True, ""
            except OSError:
                self._temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, State] | None:
    """The states in a file; empty if there is no file, None if it is damaged."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError:
        return None
    states = parse(raw, is_entry=False)
    return None if states is None or not all(map(_is_state, states.values())) else states


def _is_state(state: object) -> bool:
    if not isinstance(state, dict):
        return False
    deferred, lost_at, following = state.get("deferred", []), state.get("lost_at", []), state.get("next")
    return (
        all(type(state.get(key, 0)) is int and state.get(key, 0) >= 0 for key in ("offset", "rejected", "lost"))
        and isinstance(state.get("run_id"), (str, type(None)))
        and (following is None or type(following) is int)
        and isinstance(lost_at, list)
        and isinstance(deferred, list)
        and all(isinstance(entry, dict) for entry in deferred)
    )
