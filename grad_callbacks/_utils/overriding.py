"""Whether a method still speaks for others that a subclass may have replaced."""

from __future__ import annotations


def speaks_for(cls: type, name: str, *others: str) -> bool:
    """True if no class between ``cls`` and the one that defines ``name`` defines one of ``others``.

    A subclass that replaces one of them and not ``name`` has made ``name`` untrue.
    """
    for base in cls.__mro__:
        if name in vars(base):
            return True
        if any(other in vars(base) for other in others):
            return False
    return False
