"""The exact sign-flip test: whether a mean difference over paired runs is more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MIN_PAIRS = 6  # with fewer, p is at least 6% even if all differences have the same sign
MAX_EXACT = 16  # pairs up to which all 2^n sign flips are counted
FLIPS = 65_536  # sign flips that are drawn at random for more pairs


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the mean difference; NaN for fewer than six pairs.

    If a remedy does nothing, each seed's difference could as well have had the other sign. The p-value is the share
    of all 2^n choices of signs whose mean is at least as far from zero as the observed one. It assumes no
    distribution.

    References: Fisher 1935, "The Design of Experiments", sec. 21; Pitman 1937, "Significance tests which may be applied
    to samples from any populations".

    Args:
        differences: One per pair of runs of the same scenario and seed; non-finite ones are left out.
    """
    values = np.array([value for value in differences if math.isfinite(value)], dtype=np.float64)
    pairs = len(values)
    if pairs < MIN_PAIRS:
        return math.nan
    if pairs <= MAX_EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, pairs))
        signs[0] = 1.0  # the observed one counts too
    totals = np.abs(signs @ values)
    rounding = 1e-9 * np.abs(values).sum()
    return float(np.mean(totals >= abs(values.sum()) - rounding))
