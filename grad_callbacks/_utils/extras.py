"""Parts that need a package which is not installed say so, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
        package = error.name.partition(".")[0]
        raise ModuleNotFoundError(
            f"{what} needs {package}, which is not installed: pip install 'grad-callbacks[{extra}]'", name=error.name
        ) from error
