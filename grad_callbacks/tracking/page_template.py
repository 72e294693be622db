"""HTML pages that are made from files of this package and from data; they need no network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_INCLUDE = re.compile(r"/\*INCLUDE (\S+)\*/")
_DATA = "/*DATA*/"


def template(name: str) -> str:
    """Read a page, with the style sheets and scripts that it includes.

    Args:
        name: Path in ``grad_callbacks/tracking``, as in ``/*INCLUDE run_page/shared.css*/`` within a page.
    """
    return _INCLUDE.sub(lambda found: _read(found.group(1)).strip(), _read(name))


def filled(page: str, data: Mapping[str, Any]) -> str:
    """Put the data into a page as JSON, escaped so that no text in it can end the script."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return page.replace(_DATA, text.replace("<", "\\u003c"), 1)


def _read(name: str) -> str:
    return files("grad_callbacks.tracking").joinpath(name).read_text(encoding="utf-8")
