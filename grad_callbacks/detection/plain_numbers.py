"""Numbers as alerts show them: rounded, without leading zeros in the exponent."""

from __future__ import annotations


def rounded(value: float) -> str:
    """Return two significant digits: ``"0.24"``, ``"740"``, ``"1.3e-5"``."""
    text = f"{float(f'{value:.2g}'):g}"
    return text.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def of_weight_norm(share: float) -> str:
    """Return the size of an update: ``"45% of the weight norm"``, ``"7.4x the weight norm"``."""
    return f"{rounded(share)}x the weight norm" if share >= 1 else f"{share:.0%} of the weight norm"
