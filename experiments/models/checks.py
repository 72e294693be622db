"""What all models check of their arguments."""

from __future__ import annotations


def whole_numbers(**arguments: int) -> None:
    """Refuse arguments that are not whole numbers of at least 1, by name."""
    for name, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
