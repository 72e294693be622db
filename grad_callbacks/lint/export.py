"""Reads the tables that a run has left: one row per step and layer, and one row per step beside it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grad_callbacks._utils.extras import needs

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("step", "layer", "norm")
NO_WEIGHTS = re.compile(r"(?i)(?:^|[._])(?:\w*norm\w*|bn\d*|ln\w*|emb\w*|embed\w*|wte|wpe)(?:$|[._])")


@dataclass(frozen=True)
class Export:
    """The tables of a run.

    Attributes:
        history: One row per step and layer, in the order of the readings.
        steps: One row per step; None where it is not known.
        raised: What the run itself has raised: rows of its table of alerts; None where it is not known.
        missing: What the tables lack, in words.
    """

    history: pd.DataFrame
    steps: pd.DataFrame | None = None
    raised: list[dict[str, Any]] | None = None
    missing: list[str] = field(default_factory=list)


def read_export(file: Path, steps: Path | None = None) -> Export:
    """Read a history, and what stands beside it as in the folder ``gradients/`` of an MLflow run.

    Args:
        file: ``history.parquet``, or the same as CSV.
        steps: One row per step; by default ``steps.parquet`` or ``steps.csv`` beside the file, if it is there.

    Raises:
        ValueError: If a file is not there, cannot be read, or is no such table.
        ModuleNotFoundError: If pandas or pyarrow is not installed.
    """
    history, missing = _table(file), []
    if lacking := [name for name in NEEDED if name not in history]:
        raise ValueError(f"{file} is no history of a run: it has no column {', '.join(lacking)}")
    if history.empty:
        raise ValueError(f"{file} has no rows: no step was measured")
    if steps is None:
        beside = [file.with_name(f"steps{suffix}") for suffix in (".parquet", ".csv")]
        steps = next((each for each in beside if each.is_file()), None)
    series = None if steps is None else _table(steps)
    if series is not None and "step" not in series:
        raise ValueError(f"{steps} is no table of steps: it has no column step")
    if "profiled" not in history:
        missing.append("which layers own a weight: taken from their names")
        history = history.assign(profiled=[NO_WEIGHTS.search(str(name)) is None for name in history["layer"]])
    if series is None:
        missing.append("loss and optimizer (steps.parquet): what asks for the loss is not judged")
    elif "loss" not in series or series["loss"].isna().all():
        missing.append("the loss: what asks for it is not judged")
    if "squares_decay" not in (() if series is None else series):
        missing.append("how the optimizer uses a gradient: judged as of an adaptive one; outliers are not judged")
    for name in ("weight_norm", "update_ratio"):
        if name not in history:
            missing.append(f"{name}: what asks how far the weights move is not judged")
    return Export(history, series, _raised(file.with_name("alerts.json")), missing)


def _table(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    with needs("mlflow", "reading a table"):
        import pandas as pd

        try:
            if file.suffix == ".parquet":
                return pd.read_parquet(file)
            return pd.read_csv(file)
        except ImportError as error:
            raise ModuleNotFoundError("reading parquet needs pyarrow", name="pyarrow") from error
        except Exception as error:  # of pandas or pyarrow: many kinds
            raise ValueError(f"{file} cannot be read: {error}") from error


def _raised(file: Path) -> list[dict[str, Any]] | None:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
