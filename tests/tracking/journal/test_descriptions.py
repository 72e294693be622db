"""What cannot be stored is named as users name it: no message shows how a journal keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunTag

from grad_callbacks.tracking import sync
from grad_callbacks.tracking.journal.descriptions import description, shown
from grad_callbacks.tracking.journal.requests import _entry_of
from tests.support.journals import metrics, old_journal

ODD: dict[str, tuple[dict[str, Any], str]] = {
    "a step": ({"m": {"loss": 1.0}, "s": 2**70, "t": 1}, f"metric loss at step {2**70}: its step {2**70} does not fit"),
    "no step": ({"m": {"loss": 1.0}, "s": {"a": 1}, "t": 1}, "metric loss: its step is no whole number"),
    "a time": ({"m": {"loss": 1.0}, "s": 3, "t": -1}, "metric loss at step 3: its time -1 does not fit"),
    "no number": ({"m": {"loss": {"a": 1}}, "s": 3, "t": 1}, "metric loss at step 3: "),
    "no names": ({"m": [1, 2], "s": 3, "t": 1}, "metrics of type list: they have no names"),
    "a model": ({"m": {"loss": 1.0}, "s": 3, "t": 1, "of": {"x": 1}}, "metric loss at step 3: what is said of it"),
    "a parameter": ({"p": {"lr\ud800": "1"}}, "parameter lr\\ud800: its name is no valid Unicode"),
    "a tag": ({"g": {"n" * 400: "1"}}, f"tag {'n' * 200}…: its name has 400 characters"),
    "a place": ({"file": f"{'a' * 12}/x.txt", "to": "../up"}, "artifact ../up/x.txt: ../up is outside of"),
    "a drive": ({"file": f"{'a' * 12}/x.txt", "to": "acc:top1"}, "artifact acc:top1/x.txt: acc:top1 is no folder"),
    "no place": ({"file": f"{'a' * 12}/x.txt", "to": {"a": 1}}, "artifact x.txt: a value of type dict is no folder"),
    "no copy": ({"file": "x.txt", "to": "n"}, "artifact n/x.txt: x.txt is no copy that a journal makes"),
    "a missing copy": ({"file": f"{'a' * 12}/x.txt", "to": "n"}, "artifact n/x.txt: its copy is missing"),
    "a status": ({"status": "DONE", "t": 1}, "the status DONE: MLflow knows no status DONE"),
    "a removal": ({"untag": ["a"]}, "the removal of the tag a value of type list: untag is no text"),
    "a data set": ({"datasets": [{"dataset": {"name": "mnist"}}]}, "data set mnist: "),
    "no data set": ({"datasets": [{"x": 1}]}, "data set without a name: a data set is not complete"),
    "another run": ({"m": {"loss": 1.0}, "s": 3, "t": 1, "run": {"a": 1}}, "metric loss at step 3: its run is no id"),
    "a run": ({"p": {"lr": "1"}, "run": "b" * 32}, f"parameter lr of the run {'b' * 32}: this journal is not yours"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_mlflow_cannot_store_is_named_as_the_user_names_it(
    name: str, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry, told = ODD[name]
    old_journal(tmp_path / "journal", [entry, *metrics(2, name="other")])
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.rejected) == ("sent", 1)
    assert f"MLflow cannot store {told}" in caplog.text
    assert not any(inner in caplog.text for inner in ("{'", "'crc32'", "<Metric", "<Param"))


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"m": {"a": 1.0, "b": 2.0, "c": 3.0}, "s": 5}, "metric a and 2 more at step 5"),
        ({"p": {"lr": "1"}}, "parameter lr"),
        ({"file": "0123456789ab/x.txt", "to": "", "bytes": 6, "crc32": "f9741949"}, "artifact x.txt"),
        ({"name": "first try"}, "the run's name first try"),
        ({"p": {}}, "an entry of no known kind"),
        (_entry_of(Metric("a", 1.0, 5, 7)), "metric a at step 7"),
        (_entry_of(Param("lr", "1")), "parameter lr"),
        (_entry_of(RunTag("kind", "x")), "tag kind"),
    ],
    ids=str,
)
def test_an_entry_is_described_in_words(entry: dict[str, Any], text: str) -> None:
    assert description(entry) == text


def test_what_is_shown_is_one_plain_line_without_secrets() -> None:
    assert shown("a\nb\x1b[2Jc\u202e") == "a\\nb\\x1b[2Jc\\u202e"
    assert "hunter2" not in shown("https://user:hunter2@host/path")
    assert len(shown("x" * 10**6)) == 201
    assert shown({"secret": 1}) == "a value of type dict"
