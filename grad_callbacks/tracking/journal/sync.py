"""Journals that were left behind: sent later, from any machine to any server; runs of processes that are gone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.journal import ENDED, Journal, journals
from grad_callbacks.tracking.journal.sender import Sender
from grad_callbacks.tracking.secrets.masking import MASK, mask
from grad_callbacks.tracking.store import StoreError, default_store

log = logging.getLogger("grad_callbacks")


@dataclass(frozen=True)
class Synced:
    """What came of one journal.

    Attributes:
        journal: Its file.
        state: ``sent``, ``running`` (its own process sends it) or ``pending`` (the server did not take it all).
        run_id: The server's name of the run, if it is known.
        entries: How many were sent now.
        rejected: How many the server will never take.
        reason: Why it is pending.
    """

    journal: Path
    state: Literal["sent", "running", "pending"]
    run_id: str | None = None
    entries: int = 0
    rejected: int = 0
    reason: str = ""


def sync(folder: Path, uri: str | None = None, *, ended: bool = False, prune: bool = False) -> Iterator[Synced]:
    """Send what the journals in a folder still hold, each exactly once however often this is called.

    Journals of living processes are left to them. A run whose process is gone without a word is marked KILLED.

    Args:
        folder: Where the journals are.
        uri: The tracking address; by default each journal's own.
        ended: Also mark runs KILLED whose process was on another machine, of which nothing is known here.
        prune: Remove journals that are wholly sent.
    """
    for journal in journals(folder):
        synced = sync_journal(journal, uri, ended=ended, prune=prune)
        if synced is not None:
            yield synced


def sync_journal(
    journal: Journal, uri: str | None = None, *, ended: bool = False, prune: bool = False
) -> Synced | None:
    """Do the same with one journal; None if somebody has removed it meanwhile."""
    if not journal.take_existing():
        return Synced(journal.path, "running") if journal.path.exists() else None
    try:
        return _sync_one(journal, uri or _own_server(journal), ended, prune)
    finally:
        journal.close()


def sweep(folder: Path, but: Journal, sender: Sender) -> None:
    """Mark the runs KILLED whose process is gone without a word, and remove what is wholly sent and not to be kept.

    Args:
        folder: Where the journals are.
        but: The caller's own, which is left out.
        sender: Its connection: statuses go to the same server if the run is there. The rest is :func:`sync`'s.
    """
    for journal in journals(folder):
        if journal.path == but.path or not journal.take_existing():
            continue
        try:
            if mark_if_gone(journal):
                with suppress(Exception):
                    sender.tell_end(journal)
            if journal.is_wholly_sent() and not journal.header.get("keep"):
                journal.remove()
        finally:
            journal.close()


def mark_if_gone(journal: Journal, ended: bool = False) -> bool:
    """Write the status KILLED into a journal whose process has ended without one; True if so.

    Args:
        journal: Not that of a living process on this machine: its lock was free.
        ended: Also if it was on another machine.
    """
    if journal.last_status() in ENDED:
        return False
    if not ended and not journal.owner().is_gone(journal.last_sign):
        return False
    journal.append(status_entry("KILLED", int(journal.last_sign * 1000)))
    return True


def _own_server(journal: Journal) -> str:
    uri = str(journal.header.get("uri", ""))
    return uri if uri and MASK not in uri else default_store()  # a masked address is none


def _sync_one(journal: Journal, uri: str, ended: bool, prune: bool) -> Synced:
    mark_if_gone(journal, ended)
    sender, entries = Sender(journal, uri), 0
    try:
        if not sender.is_done():
            sender.connect()
            while count := sender.step():
                entries += count
            sender.send_deferred()
    except StoreError as error:
        return Synced(journal.path, "pending", sender.run_id, entries, sender.rejected, str(error))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Synced(journal.path, "pending", sender.run_id, entries, sender.rejected, str(mask(reason)))
    state: Literal["sent", "pending"] = "sent" if sender.is_done() else "pending"
    if prune and journal.is_wholly_sent():
        journal.remove()
    return Synced(journal.path, state, sender.run_id, entries, sender.rejected, "" if state == "sent" else "artifacts")
