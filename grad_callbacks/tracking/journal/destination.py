"""To which server a journal may be sent."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.secrets.masking import MASK, mask_address
from grad_callbacks.tracking.store import default_store


@dataclass(frozen=True)
class Destination:
    """Where a journal goes.

    Attributes:
        uri: The tracking address; empty if it may go nowhere.
        reason: Why it may go nowhere, and what to type.
    """

    uri: str
    reason: str = ""


def destination(journal: Journal, uri: str | None) -> Destination:
    """Return the server that the user has named, or the one that a journal of the user's own names.

    The address in a journal from somebody else is shown, and not followed.

    Args:
        journal: What is to be sent.
        uri: The address that the user has named; None if none was.
    """
    if uri:
        return Destination(uri)
    proposed, default = str(journal.header.get("uri", "")), default_store()
    if proposed in ("", default, mask_address(default)):
        return Destination(default)
    command = f"grad-callbacks sync {shlex.quote(str(journal.path.parent))}"
    if MASK in proposed:
        return Destination(
            "",
            f"its address {proposed} had a password, which is not kept: {command} --uri ADDRESS",
        )
    if journal.is_trusted:
        return Destination(proposed)
    return Destination(
        "",
        f"it was not written by you on this machine, and names the server {ascii(proposed)[1:-1]}. "
        f"If you want it there: {command} --uri {shlex.quote(ascii(proposed)[1:-1])}",
    )
