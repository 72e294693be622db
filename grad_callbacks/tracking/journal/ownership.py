"""Which journals were written by this user's own processes: their headers are signed with a key of the user.

The key is a file outside of every journal's folder. A journal from somebody else has no valid signature: what its
header asks for (a server, a place for artifacts, a run that exists already) is shown to the user, and not followed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

SIGNED = ("id", "uri", "experiment", "artifact_location", "run_id")  # what decides where the data go
KEY_LENGTH = 64  # characters: 256 bits in hexadecimal


def key_path() -> Path:
    """Return the key's file: ``grad-callbacks/key`` in ``$XDG_STATE_HOME``, by default ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "grad-callbacks" / "key"


def signed(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header with a signature; without one if the user's folder cannot be written."""
    with suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        key = _read_key() or _new_key()
        if key:
            return dict(header) | {"signature": _signature(header, key)}
    return dict(header)


def is_own(header: Mapping[str, Any]) -> bool:
    """True if a process of this user has written the header, on this machine or on one that shares the home folder."""
    with suppress(OSError, RuntimeError):
        key, found = _read_key(), header.get("signature")
        return bool(key) and isinstance(found, str) and hmac.compare_digest(found, _signature(header, key))
    return False


def _signature(header: Mapping[str, Any], key: str) -> str:
    text = json.dumps([header.get(name) for name in SIGNED]).encode()
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()


def _read_key() -> str:
    try:
        key = key_path().read_text().strip()
    except FileNotFoundError:
        return ""
    return key if len(key) == KEY_LENGTH else ""


def _new_key() -> str:
    path = key_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"key-{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(KEY_LENGTH // 2))
    try:
        os.link(temporary, path)  # of processes that start together, the first one wins
    except FileExistsError:
        if not _read_key():  # it is damaged
            os.replace(temporary, path)
    except OSError:  # a file system without links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return _read_key()
