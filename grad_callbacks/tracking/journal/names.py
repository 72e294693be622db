"""Names and paths that MLflow accepts."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from grad_callbacks.tracking.journal.values import text_of
from grad_callbacks.tracking.told_once import warn_once

NAME_LIMIT = 250  # characters that MLflow accepts in a name
PART_LIMIT = 200  # bytes of a part of a path; file systems take 255, and a suffix comes along
_COLON = "" if os.name == "nt" else ":"  # as in MLflow
_LEGAL = re.compile(rf"[\w/. {_COLON}-]*")
_ILLEGAL = re.compile(rf"[^\w/. {_COLON}-]+")
_ILLEGAL_IN_PATHS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff#\\]+|%(?=[0-9a-fA-F]{2})|:$")


def legal_name(name: object) -> str:
    r"""Return the name under which a metric, parameter or tag is logged.

    What MLflow accepts stays as it is: letters and digits of any script, ``_ - . / :`` and spaces, up to 250
    characters, if it is no path that leads elsewhere (``a//b``, ``../a``). Any other name is changed, told once, and
    ends with eight digits that are computed from the whole name: ``loss@a`` and ``loss#a`` stay two, in every process.
    """
    return _legal_name(name if isinstance(name, str) else text_of(name))


@lru_cache(maxsize=8192)
def _legal_name(name: str) -> str:
    if _LEGAL.fullmatch(name) and len(name) <= NAME_LIMIT and _leads_to_itself(name):
        return name
    plain = posixpath.normpath(_ILLEGAL.sub("_", name)).lstrip("/._ ").rstrip("_ ")
    legal = f"{plain[: NAME_LIMIT - 9] or 'unnamed'}-{_digits(name)}"
    warn_once(legal, "MLflow does not accept the name %.100r: it is logged as %.100s", name, legal)
    return legal


def legal_path(path: str | os.PathLike[str]) -> str:
    """Return the path of an artifact, below the run's artifacts and with names that servers and disks accept.

    ``a//b/`` becomes ``a/b``. A path that leads elsewhere (``../a``, ``/a``) or has other characters is changed as
    names are (see :func:`legal_name`); its extension stays.
    """
    text = text_of(path)
    normal = posixpath.normpath(text) if text else ""
    parts = [] if normal in ("", ".") else normal.split("/")
    legal = [_ILLEGAL_IN_PATHS.sub("_", part) for part in parts if part not in ("", "..")]
    if legal == parts and all(len(part.encode()) <= PART_LIMIT for part in legal):
        return "/".join(legal)
    stem, extension = posixpath.splitext(legal[-1] if legal else "unnamed")
    short = [_cut(part, PART_LIMIT - 35) for part in [*legal[:-1], stem]]
    changed = "/".join([*short[:-1], f"{short[-1]}-{_digits(text)}{_cut(extension, 20)}"])
    warn_once(changed, "the artifact path %.100r cannot be used: the artifact is logged as %.300s", text, changed)
    return changed


@contextmanager
def legally_named(file: Path) -> Iterator[Path]:
    """Give the file, or a copy of it for as long if its name cannot be an artifact's (see :func:`legal_path`)."""
    name = legal_path(file.name)
    if name == file.name:
        yield file
        return
    with TemporaryDirectory() as folder:
        yield Path(shutil.copy2(file, Path(folder) / name))


def _leads_to_itself(name: str) -> bool:
    return posixpath.normpath(name) == name and name not in (".", "..") and not name.startswith(("../", "/"))


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
