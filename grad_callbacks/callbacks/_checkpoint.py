"""The callbacks' part of a checkpoint: which version wrote it, and what to do if it cannot be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from grad_callbacks._utils.checkpoint import MissingEntry
from grad_callbacks._utils.version import __version__

FORMAT = 1  # raised whenever an older version could not read what this one writes
_PARTS = ("record", "engines")
_ADVICE = "resume with that version, or delete the callback's entry from checkpoint['callbacks'] to start a new record"


def stamp() -> dict[str, Any]:
    """Return what says who wrote a state."""
    return {"version": __version__, "format": FORMAT}


def check_readable(state: Mapping[str, Any], name: str) -> None:
    """Refuse a state that this version cannot read; those without a stamp are of versions before the stamp.

    Args:
        state: What the checkpoint has for the callback.
        name: The callback's class.

    Raises:
        ValueError: If the state is of a later format, or a part is missing.
    """
    if state.get("format", 0) > FORMAT:
        raise _refusal(state, name, f"its format {state['format']} is newer than format {FORMAT} of this version")
    missing = [part for part in _PARTS if part not in state]
    if missing:
        raise _refusal(state, name, f"it has no {' and no '.join(missing)}")


@contextmanager
def explained(state: Mapping[str, Any], name: str) -> Iterator[None]:
    """Turn errors of the block, which loads a part of ``state``, into one that says what to do.

    Raises:
        ValueError: If the block fails.
    """
    try:
        yield
    except MissingEntry as error:
        raise _refusal(state, name, error.reason) from error
    except ValueError:  # says it already: other rules or remedies than those that were saved
        raise
    except Exception as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise _refusal(state, name, reason) from error


def adopt_state(key: str, others: Collection[str], states: MutableMapping[str, Any]) -> None:
    """Let a callback continue from a state that was saved under other settings, which are part of its key.

    Args:
        key: Of the callback.
        others: The keys of all callbacks of the Trainer.
        states: Those of the checkpoint, by key; the state is moved to ``key``.
    """
    if key in states:
        return
    left = [k for k in states if k not in others]
    same = [k for k in left if str(k).partition("{")[0] == key.partition("{")[0]]  # also one that cannot be read
    ours = [k for k in left if isinstance(states[k], Mapping) and set(_PARTS) <= states[k].keys()]
    if found := (same or ours)[:1]:
        states[key] = states.pop(found[0])


def _refusal(state: Mapping[str, Any], name: str, reason: str) -> ValueError:
    writer = f"grad-callbacks {state['version']}" if "version" in state else "an early grad-callbacks without a version"
    where = f"{name} cannot read its state in the checkpoint, written by {writer} (this is {__version__})"
    return ValueError(f"{where}: {reason}; {_ADVICE}")
