"""States from checkpoints that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class MissingEntry(ValueError):
    """A saved state lacks an entry that this version reads.

    Args:
        whose: The owner of the state.
        entry: The entry's name.
    """

    def __init__(self, whose: str, entry: object) -> None:
        self.reason = f"the state of {whose} has no {entry!r}"
        super().__init__(
            f"{self.reason}: another version of grad-callbacks saved it; resume with that one, or leave it out"
        )


@contextmanager
def missing_keys_named(whose: str) -> Iterator[None]:
    """Raise a :class:`MissingEntry` where a saved state lacks an entry; also a decorator.

    Args:
        whose: The owner of the state in the message, such as ``"the engine"``.
    """
    try:
        yield
    except KeyError as error:
        raise MissingEntry(whose, error.args[0]) from error


def load_named_states(parts: Sequence[Any], states: Sequence[tuple[str, Any]], what: str) -> None:
    """Load into each of ``parts`` its state, saved as pairs of class name and state.

    A state of None is of a part that had raised an error and was left out: it begins afresh.

    Raises:
        ValueError: If other classes, or in another order, were saved.
    """
    names, saved = [type(part).__name__ for part in parts], [name for name, _ in states]
    if names != saved:
        listed = " and ".join(", ".join(entry) or "none" for entry in (saved, names))
        raise ValueError(f"checkpoint and callback have different {what} ({listed}): resume with those that were saved")
    for part, (name, state) in zip(parts, states, strict=True):
        if state is not None:
            with missing_keys_named(name):
                part.load_state_dict(state)
