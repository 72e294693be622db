"""What a comparison makes of runs that ended early, were continued, or carry odd names."""

from __future__ import annotations

import io
import math

import pytest
from mlflow import MlflowClient
from rich.console import Console

from grad_callbacks.tracking.cli import main
from grad_callbacks.tracking.comparison.compare import compare
from grad_callbacks.tracking.comparison.over_seeds import over_seeds
from grad_callbacks.tracking.comparison.report import comparison_page, record_comparison, summary
from grad_callbacks.tracking.comparison.tables import comparison_table, over_seeds_table
from tests.tracking.comparison.test_compare import add_run


def shown(table: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_runs_that_were_stopped_are_counted_apart_from_failures(client: MlflowClient) -> None:
    for seed in range(3):
        add_run(client, "lr", "none", 0.5, seed=seed)
        add_run(client, "lr", "full", 0.9, seed=seed)
    add_run(client, "lr", "full", 0.1, seed=3, status="KILLED", ended="pruned")
    add_run(client, "lr", "full", 0.1, seed=4, status="KILLED", ended="preempted")
    add_run(client, "lr", "full", None, seed=5, status="FAILED", ended="failed")
    add_run(client, "lr", "full", None, seed=6, status="KILLED", ended="finished")  # of the part before it was killed
    table = compare(client)
    groups = over_seeds(table).set_index("guard")
    full = groups.loc["full"]
    assert (full["seeds"], full["failed"], full["stopped"], full["mean"]) == (3, 1, 3, pytest.approx(0.9))
    assert set(table["ended"]) == {"finished", "pruned", "preempted", "failed", "killed"}
    said = " ".join(summary(table, over_seeds(table)))
    for counted in ("1 pruned", "1 preempted", "1 failed", "1 killed"):
        assert counted in said
    assert "3 (1 failed, 3 stopped)" in shown(over_seeds_table(over_seeds(table)))
    assert "pruned" in shown(comparison_table(table))
    assert '"3 (1 failed, 3 stopped)"' in comparison_page(table)


def test_a_baseline_that_was_stopped_gives_no_difference(client: MlflowClient) -> None:
    add_run(client, "lr", "none", 0.1, status="KILLED", ended="pruned")
    add_run(client, "lr", "full", 0.9)
    assert all(math.isnan(value) for value in compare(client)["difference"])


def test_the_newest_value_counts_and_not_that_of_the_highest_step(client: MlflowClient) -> None:
    run_id = add_run(client, "lr", "full", None, metric="train/loss")
    for step, value, time in [(10, 0.5, 1000), (90, -5.1e9, 2000), (50, -0.25, 3000)]:
        client.log_metric(run_id, "train/loss", value, step=step, timestamp=time)
    assert compare(client)["accuracy"].tolist() == [-0.25]


def test_a_metric_that_no_run_has_is_one_line_that_names_the_others(
    client: MlflowClient, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(client, "lr", "full", 0.5)
    assert main(["compare", "--store", store, "--metric", "val/acuracy"]) == 2
    said = capsys.readouterr().err
    assert "no run has a metric 'val/acuracy'; there are: val/accuracy" in said
    assert said.count("\n") == 1


def test_names_of_a_store_are_shown_as_they_are(client: MlflowClient) -> None:
    parent = add_run(client, "x", "none", None)
    odd = "[/bold] [link=http://a]\x1b[2J</script><b>|\n"
    add_run(client, odd, odd, 0.5, parent=parent, verdict=odd, outcome=odd, remedies=odd, first_alert_step=odd)
    table = compare(client, sweep=parent)
    for view in (comparison_table(table), over_seeds_table(over_seeds(table))):
        text = shown(view)
        assert "[/bold] [link=http://a]" in text
        assert "\x1b" not in text
    assert "</script><b>" not in comparison_page(table)
    record_comparison(client, table)
    rows = [line for line in client.get_run(parent).data.tags["mlflow.note.content"].splitlines() if line[:1] == "|"]
    assert len(rows) == 3
