"""Data sets that ship with libraries or are generated, so that no run needs a network."""

from experiments.data.digits import Digits

__all__ = ["Digits"]
