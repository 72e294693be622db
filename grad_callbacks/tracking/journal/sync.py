"""Journals that processes left behind: send them later, and mark the runs of processes that were killed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from grad_callbacks.tracking.journal.destination import destination
from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.format import ENDED, is_of_entry
from grad_callbacks.tracking.journal.journal import Journal, journals
from grad_callbacks.tracking.journal.unreadable import unreadable
from grad_callbacks.tracking.secrets.masking import mask, mask_address

if TYPE_CHECKING:
    from grad_callbacks.tracking.journal.sender import Sender

log = logging.getLogger("grad_callbacks")


@dataclass(frozen=True)
class Synced:
    """What :func:`sync` did with one journal.

    Attributes:
        journal: Its file.
        state: ``sent``, ``running`` (its own process sends it) or ``pending`` (the server did not take everything).
        run_id: The server's id of the run, if it is known.
        entries: How many entries were sent by this call.
        rejected: How many values the server refused for good.
        reason: Why it is pending.
        lost: How many entries are damaged in the journal, and so are missing on the server.
        notes: What else the user should know: which entries are damaged, what was repaired.
        server: Where it was sent, without secrets.
        is_unreachable: It is pending because the server does not answer.
    """

    journal: Path
    state: Literal["sent", "running", "pending"]
    run_id: str | None = None
    entries: int = 0
    rejected: int = 0
    reason: str = ""
    lost: int = 0
    notes: tuple[str, ...] = ()
    server: str = ""
    is_unreachable: bool = False


def sync(
    folder: Path, uri: str | None = None, *, ended: bool = False, prune: bool = False, trust: bool = False
) -> Iterator[Synced]:
    """Send what the journals in a folder still hold, each entry once however often this is called.

    Journals of running processes are skipped. A run whose process has ended without a status is marked KILLED. A server
    that does not answer is tried once: the other journals for it are left pending.

    A journal that this user's own process has written goes to the server that it was logged to. Of any other one only
    the data are taken: it needs ``uri``, unless it names the default store; it leads to no run but its own, and does
    not say where artifacts are kept.

    Args:
        folder: Where the journals are.
        uri: The tracking address; by default the one that each journal names.
        ended: Treat unfinished runs of other hosts as ended (status KILLED): from here it cannot be known.
        prune: Remove journals that are wholly sent.
        trust: Treat every journal like the user's own.
    """
    for path, reason in unreadable(folder):
        yield Synced(path, "pending" if reason else "running", reason=reason)
    unreachable: dict[str, str] = {}
    for journal in journals(folder):
        journal.is_trusted |= trust
        to = destination(journal, uri)
        server = mask_address(to.uri)
        if not to.uri:
            yield Synced(journal.path, "pending", reason=to.reason)
            continue
        if server in unreachable:
            reason = f"not tried, since {server} does not answer: {unreachable[server]}"
            yield Synced(journal.path, "pending", reason=reason, server=server, is_unreachable=True)
            continue
        synced = sync_journal(journal, to.uri, ended=ended, prune=prune)
        if synced is None:
            continue
        if synced.is_unreachable:
            unreachable[server] = synced.reason
        yield replace(synced, server=server)


def sync_journal(journal: Journal, uri: str, *, ended: bool = False, prune: bool = False) -> Synced | None:
    """Send one journal to a server; None if another process has just removed it."""
    is_trusted = journal.is_trusted
    try:
        if not journal.take_existing():
            return Synced(journal.path, "running") if journal.path.exists() else None
        journal.is_trusted = is_trusted
        return _sync_one(journal, uri, ended, prune)
    except Exception as error:  # of one journal: the others go on
        return Synced(journal.path, "pending", reason=f"it cannot be read: {_first_line(error)}")
    finally:
        journal.close()


def clean_up(folder: Path, own: Journal, sender: Sender) -> None:
    """Mark runs KILLED whose process has ended without a status, and remove journals that are wholly sent.

    Journals that were not written by this user are left alone.

    Args:
        folder: Where the journals are.
        own: The caller's journal, which is skipped.
        sender: Its connection: a status goes to the same server, if the run is there. The rest is left to :func:`sync`.
    """
    for journal in journals(folder):
        if journal.path == own.path or not journal.is_trusted or not journal.take_existing():
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

    The journal may have lost its end, so where the run has ended on the server, that status stays.

    Args:
        journal: Its lock is held by the caller, so it is not that of a running process on this machine.
        ended: Also if the process ran on another machine.
    """
    if journal.last_status() in ENDED:
        return False
    if not ended and not journal.owner().is_gone(journal.lock.last_seen):
        return False
    journal.append(status_entry("KILLED", int(journal.lock.last_seen * 1000)) | {"guessed": True})
    return True


def _sync_one(journal: Journal, uri: str, ended: bool, prune: bool) -> Synced:
    from grad_callbacks.tracking.journal.errors import is_of_server
    from grad_callbacks.tracking.journal.sender import Sender

    if not mark_if_gone(journal, ended) and journal.last_status() in ENDED and journal.incomplete_end():
        journal.open_for_writing()  # which ends the line, so that it is sent, or counted as damaged
    sender, entries, reason, is_unreachable = Sender(journal, uri), 0, "", False
    try:
        if not sender.is_done():
            sender.connect()
            while count := sender.step():
                entries += count
            sender.send_deferred()
    except Exception as error:
        reason, is_unreachable = _first_line(error), is_of_server(error) and not sender.answers(error)
    if not reason and not sender.is_done():
        reason = f"{sender.deferred} entries could not be stored, and are tried again by the next sync"
    synced = Synced(
        journal.path,
        "pending" if reason else "sent",
        sender.run_id,
        entries,
        sender.rejected,
        reason,
        sender.lost + _cut_off(journal),
        _notes(journal, sender),
        is_unreachable=is_unreachable,
    )
    if prune and journal.is_wholly_sent():
        journal.remove()
    return synced


def _cut_off(journal: Journal) -> int:
    """How many entries are cut off at the end of a journal that another machine may still write, or nobody can."""
    return int(is_of_entry(journal.incomplete_end()) and not journal.is_shorter)


def _notes(journal: Journal, sender: Sender) -> tuple[str, ...]:
    notes = list(journal.notes)
    if sender.lost:
        count = "1 entry is" if sender.lost == 1 else f"{sender.lost} entries are"
        lost = "is lost" if sender.lost == 1 else "are lost"
        notes.append(f"{count} damaged in the journal and {lost}: {', '.join(sender.lost_at)}")
    elif sender.harmless:
        notes.append(f"{sender.harmless} damaged lines held no entry: nothing is lost")
    if _cut_off(journal):
        notes.append("its last line is not complete: 1 entry is lost, unless its process still runs")
    if journal.first_number is None:
        notes.append("it has the older format 1, without checksums: damaged numbers cannot be seen")
    return tuple(notes)


def _first_line(error: Exception) -> str:
    return str(mask((str(error).strip() or type(error).__name__).splitlines()[0]))
