"""Which probes the rules get right."""

from __future__ import annotations

import re
import shlex

from grad_callbacks.tracking.secrets.command import mask_command
from grad_callbacks.tracking.secrets.masking import mask

_ALPHABETS = {"": "Fake0Notreal1Sample2Probe3", "h": "fa4e5ec0deb1", "A": "FAKE0NOTREAL1", "d": "4071826395"}
FAKE = "Fake0Notreal1Sample2"


def leaked(probes: str) -> list[str]:
    """The secrets of a table that can be read after masking."""
    return [probe for probe in _lines(probes) if _leaks(probe)]


def changed(probes: str) -> list[str]:
    """The innocents of a table that masking changes."""
    return [probe for probe in _lines(probes) if _masked(*_innocent(probe)) != _innocent(probe)[1:]]


def count(probes: str) -> int:
    return len(_lines(probes))


def _lines(probes: str) -> list[str]:
    return [line for line in probes.splitlines() if line]


def _leaks(probe: str) -> bool:
    kind, text = probe.split(" ", 1)
    fakes = {FAKE}

    def fake(found: re.Match[str]) -> str:
        if found.group(1) is None:
            return FAKE
        alphabet = _ALPHABETS[found.group(2)]
        made = (alphabet * 9)[: int(found.group(1))]
        if len(made) > 12:
            fakes.add(made)
        return made

    text = re.sub(r"\{(?:F|(\d+)([hAd]?))\}", fake, text).replace(r"\n", "\n")
    key, value = (text, FAKE) if kind == "N" else ("note", text)
    masked = "\n".join(_masked(kind, key, value))
    return any(one in masked for one in fakes)


def _innocent(probe: str) -> tuple[str, str, str]:
    kind, text = probe.split(" ", 1)
    if kind == "N":
        key, _, value = text.partition("=")
        return kind, key, value
    return kind, "note", re.sub(r"\{64h\}", "fa4e5ec0" * 8, text)


def _masked(kind: str, key: str, value: str) -> tuple[str, str]:
    if kind == "C":
        return key, shlex.join(mask_command(shlex.split(value)))
    return key, str(mask({key: value})[key])
