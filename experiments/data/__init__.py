"""Data sets that ship with libraries or are generated, so that no run needs a network."""

from experiments.data.digits import Digits
from experiments.data.sequences import PixelDigits, TemporalOrder
from experiments.data.text import Text

__all__ = ["Digits", "PixelDigits", "TemporalOrder", "Text"]
