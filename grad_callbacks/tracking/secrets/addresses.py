"""Mask secrets within addresses: user and password, secrets in the query, the paths of webhooks."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from grad_callbacks.tracking.secrets.known_keys import MASK
from grad_callbacks.tracking.secrets.names import WORDS, level_of
from grad_callbacks.tracking.secrets.services import SERVICES

_ADDRESS = re.compile(r"\b([A-Za-z0-9][A-Za-z0-9+.-]{0,30})://([^\s\"'<>]*)")
_PAIR = re.compile(r"(?<![\w%.+-])([\w%.+-]{1,100})=([^\s&;,#\"'\])}]+)")
_QUERY = frozenset({"sig", "signature", "key", "code", "pass"})
# In a web address, what follows these is a secret.
_HOOK = re.compile(
    r"^(hooks?\.[^/]*|[^/?#]*/(?:[^/?#]+/)*?(?:(?:incoming)?(?:web)?hooks?(?:b2)?|with/key)|api\.telegram\.org)/.+",
    re.IGNORECASE,
)


def mask_address(text: str) -> str:
    """Mask in every address within ``text`` user and password, secrets in the query, and the paths of webhooks.

    Of the address of a notification service only the scheme stays.
    """
    return _ADDRESS.sub(_without_secrets, text) if "://" in text else text


def _without_secrets(address: re.Match[str]) -> str:
    scheme, rest = address.groups()
    if scheme.lower() in SERVICES:
        return f"{scheme}://{MASK}"
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    # A password may contain a slash: then what looks like the port is not a number.
    port = authority.rpartition(":")[2]
    runs_on = ":" in authority and "@" not in authority and not (port.isdigit() or port == "" or port.endswith("]"))
    head = rest if runs_on else authority
    if "@" in head:
        rest = f"{MASK}@{rest[head.rindex('@') + 1 :]}"
    place, mark, query = rest.partition("?")
    if scheme.lower().startswith("http"):
        place = _HOOK.sub(rf"\1/{MASK}", place)
    return f"{scheme}://{place}{mark}{_PAIR.sub(_without_query_value, query)}"


def _without_query_value(pair: re.Match[str]) -> str:
    name = unquote_plus(pair.group(1)).lower()
    words = WORDS.findall(name)
    secret = name in _QUERY or {"signature", "credential"} & set(words) or level_of(name) > 1
    return f"{pair.group(1)}={MASK}" if secret else pair.group()
