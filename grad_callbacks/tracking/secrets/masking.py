"""Mask secrets before anything is logged: by the name of a value, and within addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_plus

from grad_callbacks.tracking.secrets.services import SERVICES

MASK = "***"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ANYWHERE = frozenset(
    _WORDS.findall(
        "password passwords passwd pwd passphrase secret secrets credential credentials authorization apikey apikeys "
        "accesskey secretkey privatekey authtoken accesstoken webhook webhooks jwt bearer cookie cookies"
    )
)
_KEYS = frozenset(
    _WORDS.findall("api access secret private account encryption signing ssh auth subscription storage master")
)
# In these names, 'token' means a text token, not a credential.
_OF_TEXT = frozenset(
    _WORDS.findall(
        "cls class pad eos bos unk sep mask start end stop begin special image video audio vision visual text word sub "
        "next last first prompt prefix suffix space blank dist distill reg register dummy decoder encoder query extra "
        "additional new learnable input output use per max min num n no with has add drop separator state summary "
        "latent patch bot eot eom fim memory gist sink label time step reward action bin target source oov"
    )
)
_TEXT_TOKEN = re.compile(r"[\[<{|].{0,40}[\]>}|]")  # [CLS], <pad>, <|endoftext|>
_ADDRESS = re.compile(r"\b([A-Za-z0-9][A-Za-z0-9+.-]{0,30})://([^\s\"'<>]*)")
_PAIR = re.compile(r"(?<![\w%.+-])([\w%.+-]{1,100})=(\"[^\"]*\"|'[^']*'|[^\s&;,#\"'\])}]+)")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}")
_KNOWN = re.compile(  # recognised by their form: keys of OpenAI, GitHub, Hugging Face, AWS, Slack, GitLab, and JWT
    r"\b(?:sk-[\w-]{20,}|gh[pousr]_\w{30,}|github_pat_\w{30,}|hf_[A-Za-z0-9]{30,}|A[KS]IA[A-Z0-9]{16}"
    r"|xox[abeprs]-[\w-]{10,}|glpat-[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_QUERY = frozenset({"sig", "signature", "key", "code", "pass"})
# In a web address, what follows these is a secret.
_HOOK = re.compile(
    r"^(hooks?\.[^/]*|[^/?#]*/(?:[^/?#]+/)*?(?:(?:incoming)?(?:web)?hooks?(?:b2)?|with/key)|api\.telegram\.org)/.+",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"(?:^|\.)Notify$")  # grad_callbacks.notify.Notify, in a config
_OF_CHANNEL = re.compile(r"\bon_alert\b.*\b(?:address(?:es)?|_args_)$")  # its arguments, in a flattened one
_VARIABLE = re.compile(r"env:\w+")  # names an environment variable


def mask(value: Any, key: str = "") -> Any:
    """Return ``value`` with every secret in it replaced by ``***``.

    A value is secret by its name: ``api_key``, ``token``, ``password``, ``secret``, ``credentials``,
    ``authorization``, ``aws_*`` and their like, in any spelling, and all that lies below such a name. Flags, empty
    values, and tokens of a text (``use_cls_token``, ``pad_token``, ``max_tokens``, ``token_length``) are not. In every
    string, addresses are masked (see :func:`mask_address`), ``name=value`` with a secret name, and keys that are
    recognised by their form.

    Args:
        value: Plain data, nested at will: mappings, lists, tuples, strings, numbers. Other objects stay as they are,
            unless their name is a secret's.
        key: The value's name, also with dots, as in a flattened config.

    Returns:
        New mappings, lists and tuples; masking twice changes nothing more.
    """
    return _masked(value, _named(key))


def mask_address(text: str) -> str:
    """Mask in every address within ``text`` user and password, secrets in the query, and the paths of webhooks.

    Of the address of a notification service only the scheme stays.
    """
    return _ADDRESS.sub(_without_secrets, text)


def is_secret(key: str, value: object = "value") -> bool:
    """True if this value would be masked for its name."""
    return bool(mask(value, key) == MASK)


def _masked(value: Any, level: int) -> Any:
    if isinstance(value, Mapping):
        value = _without_channel(value)
        return {name: _masked(entry, max(level, _named(name))) for name, entry in value.items()}
    if isinstance(value, list):
        return [_masked(entry, level) for entry in value]
    if isinstance(value, tuple):
        return tuple(_masked(entry, level) for entry in value)
    if isinstance(value, str):
        return _masked_text(value, level)
    is_number = isinstance(value, (int, float))
    return MASK if level > is_number and value is not None and not isinstance(value, bool) else value


def _without_channel(config: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A config of Hydra or LightningCLI without the addresses of a ``Notify``, which need not look like secrets."""
    if not _CHANNEL.search(str(config.get("_target_", config.get("class_path", "")))):
        return config
    return {
        name: _hidden(value) if name in ("init_args", "dict_kwargs") and isinstance(value, Mapping) else value
        for name, value in _hidden(config).items()
    }


def _hidden(arguments: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return {name: _masked(value, 2) if name in ("addresses", "_args_") else value for name, value in arguments.items()}


def _masked_text(text: str, level: int) -> str:
    if _VARIABLE.fullmatch(text) or text == MASK:
        return text
    if level == 1 and _TEXT_TOKEN.fullmatch(text):
        return text
    if level and text.strip() and text.lower() not in {"true", "false", "none", "null", "???"}:
        return MASK
    text = _PAIR.sub(_without_value, mask_address(text))
    return _KNOWN.sub(MASK, _BEARER.sub(rf"\1 {MASK}", text))


def _named(name: object) -> int:
    if _OF_CHANNEL.search(str(name)):
        return 2
    return max(_level(part) for part in str(name).split("."))


def _level(name: str) -> int:
    """How secret a name is: 0 not, 1 if its value is a text, 2 if it is a number as well."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words:
        return 0
    if words[0] == "aws" or words[-1] == "auth" or not _ANYWHERE.isdisjoint(words):
        return 2
    for first, second in pairwise(words):
        if first in _KEYS and second in ("key", "keys"):
            return 2
    while len(words) > 1 and (
        words[-1].isdigit() or (words[-1] in ("value", "string", "str", "id") and "token" in words)
    ):
        words.pop()
    if words[-1] not in ("token", "tokens") or not _OF_TEXT.isdisjoint(words):
        return 0
    return 1 if words[-1] == "token" else 0


def _without_value(pair: re.Match[str]) -> str:
    name, value = pair.groups()
    is_number = re.fullmatch(r"[-+.\deE]+", value.strip("\"'")) is not None
    secret = _named(unquote_plus(name)) > is_number and _masked_text(value.strip("\"'"), 1) == MASK
    return f"{name}={MASK}" if secret else pair.group()


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
    words = _WORDS.findall(name)
    secret = name in _QUERY or {"signature", "credential"} & set(words) or _level(name)
    return f"{pair.group(1)}={MASK}" if secret else pair.group()
