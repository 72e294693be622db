"""Journals that processes left behind: send them later, and mark the runs of processes that were killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.format import ENDED
from grad_callbacks.tracking.journal.journal import Journal, journals
from grad_callbacks.tracking.secrets.masking import MASK, mask
from grad_callbacks.tracking.store import StoreError, default_store

if TYPE_CHECKING:
    from grad_callbacks.tracking.journal.sender import Sender


@dataclass(frozen=True)
class Synced:
    """What :func:`sync` did with one journal.

    Attributes:
        journal: Its file.
        state: ``sent``, ``running`` (its own process sends it) or ``pending`` (the server did not take everything).
        run_id: The server's id of the run, if it is known.
        entries: How many entries were sent by this call.
        rejected: How many entries the server refused for good.
        reason: Why it is pending.
    """

    journal: Path
    state: Literal["sent", "running", "pending"]
    run_id: str | None = None
    entries: int = 0
    rejected: int = 0
    reason: str = ""


def sync(folder: Path, uri: str | None = None, *, ended: bool = False, prune: bool = False) -> Iterator[Synced]:
    """Send what the journals in a folder still hold, each entry once however often this is called.

    Journals of running processes are skipped. A run whose process has ended without a status is marked KILLED.

    Args:
        folder: Where the journals are.
        uri: The tracking address; by default the one that each journal names.
        ended: Treat unfinished runs of other hosts as ended (status KILLED): from here it cannot be known.
        prune: Remove journals that are wholly sent.
    """
    for journal in journals(folder):
        synced = sync_journal(journal, uri, ended=ended, prune=prune)
        if synced is not None:
            yield synced


def sync_journal(
    journal: Journal, uri: str | None = None, *, ended: bool = False, prune: bool = False
) -> Synced | None:
    """Do the same with one journal; None if another process has just removed it."""
    if not journal.take_existing():
        return Synced(journal.path, "running") if journal.path.exists() else None
    try:
        return _sync_one(journal, uri or _own_server(journal), ended, prune)
    finally:
        journal.close()


def clean_up(folder: Path, own: Journal, sender: Sender) -> None:
    """Mark runs KILLED whose process has ended without a status, and remove journals that are wholly sent.

    Args:
        folder: Where the journals are.
        own: The caller's journal, which is skipped.
        sender: Its connection: a status goes to the same server, if the run is there. The rest is left to :func:`sync`.
    """
    for journal in journals(folder):
        if journal.path == own.path or not journal.take_existing():
            continue
        try:
            if mark_if_gone(journal):
                with suppress(Exception):
                    sender.send_status(journal)
            if journal.is_wholly_sent() and not journal.header.get("keep"):
                journal.remove()
        finally:
            journal.close()


def mark_if_gone(journal: Journal, ended: bool = False) -> bool:
    """Write the status KILLED into a journal whose process has ended without a status; True if so.

    Args:
        journal: Its lock is held by the caller, so it is not that of a running process on this machine.
        ended: Also if the process ran on another machine.
    """
    if journal.last_status() in ENDED:
        return False
    if not ended and not journal.owner().is_gone(journal.lock.last_seen):
        return False
    journal.append(status_entry("KILLED", int(journal.lock.last_seen * 1000)))
    return True


def _own_server(journal: Journal) -> str:
    uri = str(journal.header.get("uri", ""))
    return uri if uri and MASK not in uri else default_store()  # a masked address cannot be used


def _sync_one(journal: Journal, uri: str, ended: bool, prune: bool) -> Synced:
    from grad_callbacks.tracking.journal.sender import Sender

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
