"""Runs averaged over seeds, and compared with their baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from grad_callbacks.tracking.comparison.compare import KEYS
from grad_callbacks.tracking.comparison.significance import sign_flip_p
from grad_callbacks.tracking.ending import STOPPED

if TYPE_CHECKING:
    import pandas as pd


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per scenario, variant and guard: mean and spread over seeds, and the gain over the baseline.

    Args:
        table: From :func:`grad_callbacks.tracking.comparison.compare.compare`.

    Returns:
        Columns ``scenario``, ``variant``, ``guard``, ``seeds`` (runs with a value), ``failed`` (runs without),
        ``stopped`` (runs that were pruned, preempted, interrupted or killed, which count nowhere else), ``mean``
        and ``spread`` (standard deviation) of the metric, ``pairs`` (seeds that the baseline has too), ``gain`` and
        ``gain_spread`` of the paired differences, ``p`` (see ``sign_flip_p``; not corrected for the number of rows; NaN
        below six pairs and for the baseline itself), ``verdict`` and ``outcome`` (the most frequent), ``repaired``
        (share of the runs with an alert that were), ``remedies``, ``is_baseline``.
    """
    import pandas as pd

    rows = [_over_seeds(dict(zip(KEYS, key, strict=True)), runs) for key, runs in table.groupby(KEYS, sort=False)]
    columns = [*KEYS, "seeds", "failed", "stopped", "mean", "spread", "pairs", "gain", "gain_spread", "p"]
    groups = pd.DataFrame(rows, columns=[*columns, "verdict", "outcome", "repaired", "remedies", "is_baseline"])
    groups.attrs = dict(table.attrs)
    return groups


def has_several_seeds(table: pd.DataFrame) -> bool:
    """True if some runs differ by their seed only."""
    return bool(table.duplicated(KEYS).any())


def _over_seeds(key: dict[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    was_stopped = runs["ended"].isin(STOPPED)
    values = runs["accuracy"].where(np.isfinite(runs["accuracy"]) & ~was_stopped).dropna()
    is_baseline = bool(runs["is_baseline"].any())
    gains = runs["difference"].where(np.isfinite(runs["difference"])).dropna()
    alarmed = runs[~runs["verdict"].isin(["", "healthy"])]
    remedies = dict.fromkeys(
        name for names in runs["remedies"] for name in names.split(", ") if name not in ("", "none")
    )
    return key | {
        "seeds": len(values),
        "failed": len(runs) - len(values) - int(was_stopped.sum()),
        "stopped": int(was_stopped.sum()),
        "mean": values.mean() if len(values) else math.nan,
        "spread": values.std() if len(values) > 1 else math.nan,
        "pairs": len(gains),
        "gain": gains.mean() if len(gains) else math.nan,
        "gain_spread": gains.std() if len(gains) > 1 else math.nan,
        "p": math.nan if is_baseline else sign_flip_p(gains.tolist()),
        "verdict": _most_frequent(runs["verdict"]),
        "outcome": _most_frequent(runs["outcome"]),
        "repaired": float((alarmed["outcome"] == "repaired").mean()) if len(alarmed) else math.nan,
        "remedies": ", ".join(remedies),
        "is_baseline": is_baseline,
    }


def _most_frequent(values: pd.Series[str]) -> str:
    return str(values.value_counts().index[0])
