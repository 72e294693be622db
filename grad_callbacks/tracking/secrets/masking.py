"""Mask secrets before anything is logged: by the name of a value, by its form, and within texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from grad_callbacks.tracking.secrets.addresses import mask_address
from grad_callbacks.tracking.secrets.known_keys import MASK
from grad_callbacks.tracking.secrets.names import Level, level_of
from grad_callbacks.tracking.secrets.texts import mask_text

__all__ = ["MASK", "is_secret", "mask", "mask_address"]

_CHANNEL = re.compile(r"(?:^|\.)Notify$")  # grad_callbacks.notify.Notify, in a config
DEEPEST = 100  # levels of nesting that are followed; Python itself ends a program at about 1000
TOO_DEEP = "..."  # stands for what contains itself, and for what lies deeper


def mask(value: Any, key: str = "") -> Any:
    """Return ``value`` with every secret in it replaced by ``***``.

    A value is secret by its name: ``api_key``, ``token``, ``db_pass``, ``secret``, ``creds``, ``authorization`` and
    their like, in any spelling, and all that lies below such a name. Flags, empty values, names that only describe a
    secret (``password_length``, ``api_key_env``) and tokens of a text (``use_cls_token``, ``max_tokens``) are not. In
    every string, these are masked: addresses (see :func:`mask_address`), values after a secret's name
    (``password: x``, ``"token": "x"``, ``--api-key x``), headers, private keys, and keys that are recognised by their
    form.

    Args:
        value: Plain data, nested at will: mappings, lists, tuples, strings, numbers. Other objects stay as they are,
            unless their name is a secret's. What contains itself, or lies deeper than 100 levels, becomes ``...``.
        key: The value's name, also with dots, as in a flattened config.

    Returns:
        New mappings, lists and tuples; masking twice changes nothing more.
    """
    return _masked(value, level_of(key), ())


def is_secret(key: str, value: object = "value") -> bool:
    """True if this value would be masked for its name."""
    return bool(mask(value, key) == MASK)


def _masked(value: Any, level: int, above: tuple[int, ...]) -> Any:
    if isinstance(value, (Mapping, list, tuple)):
        if id(value) in above or len(above) >= DEEPEST:
            return TOO_DEEP
        above = (*above, id(value))
    if isinstance(value, Mapping):
        value = _without_channel(value)
        return {name: _masked(entry, max(level, level_of(str(name))), above) for name, entry in value.items()}
    if isinstance(value, list):
        return [_masked(entry, level, above) for entry in value]
    if isinstance(value, tuple):
        return tuple(_masked(entry, level, above) for entry in value)
    if isinstance(value, str):
        return mask_text(value, level)
    if value is None or isinstance(value, bool):
        return value
    return MASK if level > (Level.TEXT if isinstance(value, (int, float)) else Level.IF_RANDOM) else value


def _without_channel(config: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A config of Hydra or LightningCLI without the addresses of a ``Notify``, which need not look like secrets."""
    if not _CHANNEL.search(str(config.get("_target_", config.get("class_path", "")))):
        return config
    return {
        name: _hidden(value) if name in ("init_args", "dict_kwargs") and isinstance(value, Mapping) else value
        for name, value in _hidden(config).items()
    }


def _hidden(arguments: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return {
        name: _masked(value, Level.ALL, ()) if name in ("addresses", "_args_") else value
        for name, value in arguments.items()
    }
