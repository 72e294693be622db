"""How gradients shrink or grow over depth, from the last layer back to the first.

By the chain rule the error at layer l is the error at layer l+1 times one Jacobian, so over many layers its
size changes by a factor per layer (Schoenholz et al. 2017, "Deep Information Propagation", sec. 3: the factor
of the squared error is chi_1). All functions take arrays with one value per layer, the first layer first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grad_callbacks._utils.thresholds import Thresholds, threshold

Profile = NDArray[np.float64]


@dataclass(frozen=True)
class DepthProfileThresholds(Thresholds):
    """Thresholds of the comparison of early with late layers."""

    parts: int = threshold(
        3,
        "the early and the late layers, or time steps, are the first and the last of so many parts; fewer have none",
        unit="parts",
        source="not measured",
    )
    fitted: int = threshold(
        5,
        "layers over which a factor per layer can be fitted: over fewer a single unlike one looks like a decay",
        unit="layers",
        source="not measured",
    )


DEPTH = DepthProfileThresholds()


def decay_per_layer(rms: Profile) -> float:
    """Return the factor by which the gradient changes per layer, going backward.

    Below 1 it vanishes toward the first layer, above 1 it explodes. The fit is the median of all pairwise
    slopes of log(rms) (Theil 1950; Sen 1968), so that up to 29% of the layers may be outliers.

    Args:
        rms: Root mean square of each layer's gradient, shape ``(layers,)``. Zeros and non-finite values are
            left out.

    Returns:
        The factor, or NaN where fewer than two layers are left.
    """
    usable = np.isfinite(rms) & (rms > 0)
    depth, log_rms = np.nonzero(usable)[0], np.log(rms[usable])
    if len(depth) < 2:
        return float("nan")
    first, second = np.triu_indices(len(depth), k=1)
    slopes = (log_rms[second] - log_rms[first]) / (depth[second] - depth[first])
    return float(np.exp(-np.median(slopes)))


def early_to_late(rms: Profile) -> float:
    """Return the size of the early layers' gradients relative to the late ones'.

    The early level is the median over the first third of the layers, the late level the maximum over the
    last third: one dead or frozen-looking layer changes neither.

    Returns:
        The ratio; NaN for fewer than three layers or without any gradient in the last third.
    """
    third = len(rms) // DEPTH.parts
    if third == 0:
        return float("nan")
    late = float(np.maximum.reduce(rms[-third:]))  # what ndarray.max calls, at a third of its time
    if not late > 0:
        return float("nan")
    early = sorted(rms[:third].tolist())  # np.median takes ten times as long for a few numbers
    return float(early[third // 2] + early[(third - 1) // 2]) / 2 / late
