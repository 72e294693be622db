"""Mask the secrets of a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grad_callbacks.tracking.secrets.known_keys import MASK
from grad_callbacks.tracking.secrets.names import Level, level_of
from grad_callbacks.tracking.secrets.texts import LOGIN_OPTIONS, is_secret_text, mask_text

_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)")


def mask_command(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments without secrets: also those that follow a secret's option, as in ``--api-key X``.

    Args:
        arguments: As in ``sys.argv``.
    """
    masked, option = [], ""
    for argument in arguments:
        argument = str(argument)
        found = _OPTION.fullmatch(argument)
        if found is None:
            masked.append(_value(option, argument))
            option = option if option.endswith("s") else ""  # an option in the plural takes several values
        else:
            option = found.group(1)
            masked.append(argument)
    return masked


def _value(option: str, value: str) -> str:
    level = level_of(option) if option else Level.NOTHING
    if level < Level.ALL and value.lstrip("+-").replace(".", "", 1).isdigit():
        level = Level.NOTHING
    if option in LOGIN_OPTIONS and ":" in value and "://" not in value:
        return f"{value.partition(':')[0]}:{MASK}"
    return MASK if is_secret_text(value, level) else mask_text(value)
