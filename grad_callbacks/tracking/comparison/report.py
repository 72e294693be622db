"""A comparison as files: tables and a page with plots, also logged into the sweep's parent run."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grad_callbacks.tracking.comparison.compare import compare
from grad_callbacks.tracking.comparison.labels import plus_minus, run_label, seeds_label, shown
from grad_callbacks.tracking.comparison.over_seeds import has_several_seeds, over_seeds
from grad_callbacks.tracking.kinds import colours_of
from grad_callbacks.tracking.page_template import filled, template
from grad_callbacks.tracking.secrets.masking import mask

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

FOLDER = "comparison"
NOTE = "mlflow.note.content"
_HEADING = "# Comparison"
_NO_KIND = ("healthy", "not measured")  # verdicts that are no kind of alert


def write_comparison(table: pd.DataFrame, folder: Path) -> None:
    """Write ``runs.csv``, ``runs.parquet``, ``comparison.csv``, ``comparison.parquet`` and ``comparison.html``.

    Args:
        table: From :func:`grad_callbacks.tracking.comparison.compare.compare`, at least one row.
        folder: Created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = over_seeds(table)
    for name, frame in (("runs", table), ("comparison", groups)):
        plain = frame.copy()
        plain.attrs = {}
        plain.to_csv(folder / f"{name}.csv", index=False)
        plain.to_parquet(folder / f"{name}.parquet")
    (folder / "comparison.html").write_text(comparison_page(table), encoding="utf-8")


def comparison_page(table: pd.DataFrame) -> str:
    """Return the comparison as one HTML page: plots, means and differences by scenario, and all runs.

    Args:
        table: From :func:`grad_callbacks.tracking.comparison.compare.compare`, at least one row.
    """
    groups = over_seeds(table)
    data = {
        "title": f"Comparison: {table.attrs.get('experiment', 'runs')}",
        "metric": table.attrs.get("metric", "metric"),
        "less_is_better": bool(table.attrs.get("less_is_better", False)),
        "summary": summary(table, groups),
        "groups": _records(groups.assign(counted=[seeds_label(row) for _, row in groups.iterrows()])),
        "runs": _records(table),
        "kinds": [list(pair) for pair in colours_of(_kinds(table)).items()],
    }
    return filled(template("comparison/comparison.html"), mask(data))


def summary(table: pd.DataFrame, groups: pd.DataFrame) -> list[str]:
    """Return a few sentences: what was compared, and what the result is."""
    better = "less is better" if table.attrs.get("less_is_better") else "more is better"
    scenarios, seeds = len(set(groups["scenario"])), len(set(table["seed"]))
    sentences = [
        f"{_count(len(table), 'run')}, {_count(scenarios, 'scenario')}, {_count(seeds, 'seed')}; "
        f"compared by the last {table.attrs.get('metric', 'value')} ({better})."
    ]
    ended = table["ended"][table["ended"] != "finished"].value_counts()
    if len(ended):
        sentences.append(f"Not all runs finished: {', '.join(f'{count} {how}' for how, count in ended.items())}.")
    for scenario, rows in groups.groupby("scenario", sort=False):
        treated = rows[~rows["is_baseline"] & rows["gain"].notna()]
        if treated.empty:
            continue
        best = treated.iloc[int(treated["gain"].to_numpy().argmax())]
        sure = "" if math.isnan(best["p"]) else f", p = {best['p']:.3f}"
        pairs = f"over {_count(int(best['pairs']), 'seed')}"
        came_out = "gains most over" if best["gain"] > 0 else "comes nearest to"
        sentences.append(
            f"{scenario}: {run_label(best)} {came_out} the baseline, "
            f"{plus_minus(best['gain'], best['gain_spread'], sign=True)} ({pairs}{sure})."
        )
    if has_several_seeds(table):
        sentences.append(
            "± is one standard deviation over seeds. p is the exact sign-flip test over the seeds that both have, from "
            "six on, not corrected for the number of rows."
        )
    return sentences


def record_comparison(client: MlflowClient, table: pd.DataFrame) -> str | None:
    """Log the comparison into the parent run of the sweep to which all its runs belong, under ``comparison/``.

    The summary becomes the parent's description, unless a user has written one.

    Args:
        client: Of the server that has the runs.
        table: From :func:`grad_callbacks.tracking.comparison.compare.compare`.

    Returns:
        The parent run's id; None if the runs belong to no sweep, or to several.
    """
    sweeps = set(table["sweep"])
    parent = str(next(iter(sweeps))) if len(sweeps) == 1 else ""
    if not parent:
        return None
    with tempfile.TemporaryDirectory() as folder:
        write_comparison(table, Path(folder))
        client.log_artifacts(parent, folder, FOLDER)
    note = client.get_run(parent).data.tags.get(NOTE, "")
    if not note or note.startswith(_HEADING):
        client.set_tag(parent, NOTE, _note(table))
    return parent


def record_sweep(client: MlflowClient, experiment: str, parent: str) -> None:
    """Compare the runs of a sweep, and log the comparison into its parent run; do nothing if it has no runs.

    Args:
        client: Of the server that has the runs.
        experiment: The name of the MLflow experiment.
        parent: The parent run's id.
    """
    table = compare(client, experiment, sweep=parent)
    if len(table):
        record_comparison(client, table)


def _kinds(table: pd.DataFrame) -> set[str]:
    return {verdict for verdict in table["verdict"] if verdict not in ("", *_NO_KIND)}


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _note(table: pd.DataFrame) -> str:
    groups = over_seeds(table)
    lines = [_HEADING, "", *(f"- {sentence}" for sentence in summary(table, groups)), ""]
    lines += ["| scenario | runs | seeds | mean | gain | p |", "|---|---|---|---|---|---|"]
    for _, row in groups.iterrows():
        gain = "baseline" if row["is_baseline"] else plus_minus(row["gain"], row["gain_spread"], sign=True)
        p = "" if math.isnan(row["p"]) else f"{row['p']:.3f}"
        mean = plus_minus(row["mean"], row["spread"])
        lines.append(f"| {_cell(row['scenario'])} | {_cell(run_label(row))} | {row['seeds']} | {mean} | {gain} | {p} |")
    return str(mask("\n".join(lines)))[:8000]


def _cell(text: object) -> str:
    """A text as one cell of a table in Markdown."""
    return shown(text).replace("|", "\\|")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    labelled = frame.assign(label=[run_label(row) for _, row in frame.iterrows()])
    return [{str(name): _plain(value) for name, value in row.items()} for row in labelled.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool)) else value.item() if hasattr(value, "item") else str(value)
