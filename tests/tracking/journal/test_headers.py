"""Odd values in the header of a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import sync
from tests.support.journals import edit, metrics, old_journal
from tests.support.servers import steps_of, the_run


@pytest.mark.parametrize(
    "header",
    [
        {"start": 10**30},
        {"start": "soon"},
        {"tags": 5},
        {"tags": {"a": [1], "b\ud800": "x", "c": "\udfff", "d" * 300: "x", "e@()": "y"}},
        {"name": 5},
        {"name": "x" * 10_000},
        {"opened": 7},
        {"opened": {"pid": "x"}},
        {"copies": 3, "sent": 4, "base": -1, "first": "a"},
    ],
    ids=lambda header: ascii(header)[:60],
)
def test_odd_values_in_a_header_cost_themselves_only(
    header: dict[str, Any], client: MlflowClient, store: str, tmp_path: Path
) -> None:
    path = old_journal(tmp_path / "journal", metrics(3))
    edit(path, lambda entry: entry | {"version": 2} | header if "id" in entry else entry)
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.rejected, run.lost) == ("sent", 0, 0)
    assert steps_of(client, the_run(client, "plugin").info.run_id, "loss") == [0, 1, 2]
