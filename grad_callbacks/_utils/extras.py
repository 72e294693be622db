"""Parts that need a package which is not installed say so, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turn a missing package within the block into a sentence that says what to install.

    Args:
        extra: Of this package, which brings it.
        what: Needs it: the subject of the sentence.

    Raises:
        ModuleNotFoundError: If a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("grad_callbacks"):
            raise
        raise _missing(error.name.partition(".")[0], extra, what) from error


def require(package: str, extra: str, what: str) -> None:
    """Look for a package without importing it, which may take seconds.

    Raises:
        ModuleNotFoundError: If it is missing; the message says what to install.
    """
    try:
        found = find_spec(package) is not None
    except ValueError:  # blocked in sys.modules
        found = False
    if not found:
        raise _missing(package, extra, what)


def _missing(package: str, extra: str, what: str) -> ModuleNotFoundError:
    text = f"{what} needs {package}, which is not installed: pip install 'grad-callbacks[{extra}]'"
    return ModuleNotFoundError(text, name=package)
