"""Data sets that ship with libraries or are generated, so that no run needs a network."""

from experiments.data.altered import AlteredDigits, ShiftedDigits, StagedDigits
from experiments.data.curves import Inverse, Line, Waves
from experiments.data.digit_strings import DigitStrings
from experiments.data.digits import Digits
from experiments.data.documents import Documents
from experiments.data.graphs import Graphs
from experiments.data.plane import Plane
from experiments.data.ratings import Ratings
from experiments.data.sequences import PixelDigits, TemporalOrder
from experiments.data.tabular import Tabular
from experiments.data.text import Text
from experiments.data.words import Words

__all__ = [
    "AlteredDigits",
    "DigitStrings",
    "Digits",
    "Documents",
    "Graphs",
    "Inverse",
    "Line",
    "PixelDigits",
    "Plane",
    "Ratings",
    "ShiftedDigits",
    "StagedDigits",
    "Tabular",
    "TemporalOrder",
    "Text",
    "Waves",
    "Words",
]
