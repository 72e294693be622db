"""A journal from somebody else is data: it reads and removes no other file, and leads to no other place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import JournaledMLFlowLogger, sync
from grad_callbacks.tracking.cli import main
from grad_callbacks.tracking.journal.copies import UnsafePath, safe_place
from grad_callbacks.tracking.journal.journal import Journal
from tests.support.journals import edit, metrics, old_journal
from tests.support.servers import NO_SERVER, artifacts_of, steps_of, the_run


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command asks for some, and would leave that to the next test."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A file that is no business of a journal, in a folder with another one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "large.bin").write_bytes(b"x" * 100_000)
    path = tmp_path / "home" / "private.txt"
    path.write_text("mine")
    return path


def tree(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def outside(name: str, private: Path, folder: Path) -> str:
    """What a journal in a folder might name to reach a file outside of it."""
    copies = folder / "old"
    copies.mkdir(parents=True)
    if name == "an absolute path":
        return str(private)
    if name == "a way up":
        return "../../home/private.txt"
    if name == "a way up behind a copy's folder":
        (copies / ("a" * 12)).mkdir()
        return f"{'a' * 12}/../../../home/private.txt"
    if name == "a link to the file":
        (copies / ("a" * 12)).mkdir()
        (copies / ("a" * 12) / "private.txt").symlink_to(private)
        return f"{'a' * 12}/private.txt"
    if name == "a link to its folder":
        (copies / ("a" * 12)).symlink_to(private.parent)
        return f"{'a' * 12}/private.txt"
    if name == "a link in place of the journal's folder":
        copies.rmdir()
        inner = private.parent.parent / "inner"
        (inner / ("a" * 12)).mkdir(parents=True)
        private.rename(inner / ("a" * 12) / "private.txt").chmod(0o600)
        copies.symlink_to(inner)
        return f"{'a' * 12}/private.txt"
    return {"nothing": "", "its own folder": ".", "no text": 5, "NUL": "a\0b"}[name]  # type: ignore[return-value]


@pytest.mark.parametrize("half_full", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "an absolute path",
        "a way up",
        "a way up behind a copy's folder",
        "a link to the file",
        "a link to its folder",
        "a link in place of the journal's folder",
        "nothing",
        "its own folder",
        "no text",
        "NUL",
    ],
)
def test_only_copies_in_the_journals_own_folder_are_sent_or_removed(
    name: str, half_full: bool, client: MlflowClient, store: str, tmp_path: Path, private: Path
) -> None:
    folder = tmp_path / "journal"
    named = outside(name, private, folder)
    old_journal(folder, [{"file": named, "to": "", "bytes": 4}, *metrics(3)])
    before = {**tree(tmp_path / "home"), **tree(tmp_path / "inner")}
    if half_full:  # where copies are removed once they are sent
        for journal in [Journal(folder / "old.jsonl")]:
            journal.disk_limit = 0
            journal.copies.remove({"file": named})
            journal.release_copy({"file": named})
    [run] = sync(folder, store, prune=True)
    assert (run.state, run.rejected) == ("sent", 1)
    found = the_run(client, "plugin")
    assert artifacts_of(client, found.info.run_id) == []
    assert steps_of(client, found.info.run_id, "loss") == [0, 1, 2]
    assert {**tree(tmp_path / "home"), **tree(tmp_path / "inner")} == before


@pytest.mark.parametrize("place", ["..", "a/../../b", "/tmp/x", "a\\..\\b", "C:/x", "a\0b", 5, None, "file:///tmp"])
def test_an_artifact_stays_within_its_run(place: Any) -> None:
    with pytest.raises(UnsafePath):
        safe_place(place)


@pytest.mark.parametrize(("place", "kept"), [("", ""), (".", ""), ("a/b", "a/b"), ("a//b/", "a/b"), ("a b", "a b")])
def test_a_folder_of_artifacts_stays_as_it_is(place: str, kept: str) -> None:
    assert safe_place(place) == kept


@pytest.mark.parametrize(("file", "to"), [(None, ""), ("aaaaaaaaaaaa/note.txt", "../../x"), (5, ""), ("a", None)])
def test_entries_in_the_note_of_what_was_sent_are_no_better(
    file: Any, to: Any, client: MlflowClient, store: str, tmp_path: Path, private: Path
) -> None:
    path = old_journal(tmp_path / "journal", metrics(3))
    (path.with_suffix("") / ("a" * 12)).mkdir(parents=True)
    (path.with_suffix("") / ("a" * 12) / "note.txt").write_text("note")
    deferred = [{"file": str(private) if file is None else file, "to": to}]
    path.with_suffix(".sent").write_text(json.dumps({store: {"run_id": None, "offset": 0, "deferred": deferred}}))
    before = tree(tmp_path / "home")
    [run] = sync(tmp_path / "journal", store, prune=True)
    assert (run.state, run.rejected) == ("sent", 1)
    assert artifacts_of(client, the_run(client, "plugin").info.run_id) == []
    assert tree(tmp_path / "home") == before


def test_files_beside_the_copies_are_never_removed(store: str, tmp_path: Path) -> None:
    path = old_journal(tmp_path / "journal", metrics(3))
    (tmp_path / "journal" / "old" / "thesis").mkdir(parents=True)
    (tmp_path / "journal" / "old" / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "journal" / "old" / "notes.txt").write_text("mine")
    [run] = sync(tmp_path / "journal", store, prune=True)
    assert run.state == "sent"
    assert not path.exists()
    assert len(tree(tmp_path / "journal" / "old")) == 2


@pytest.mark.parametrize("name", ["...jsonl", "..jsonl", ".jsonl"])
def test_a_name_that_leads_out_of_the_folder_is_no_journals(
    name: str, store: str, tmp_path: Path, private: Path
) -> None:
    folder = tmp_path / "home" / "journal"
    old_journal(folder, metrics(3)).rename(folder / name)
    (tmp_path / "home" / ("a" * 12)).mkdir()
    (tmp_path / "home" / ("a" * 12) / "mine.txt").write_text("mine")
    before = tree(tmp_path / "home")
    [run] = sync(folder, store, prune=True)
    assert run.state == "pending"
    assert tree(tmp_path / "home") == before


def test_links_beside_the_journal_are_not_written_through(store: str, tmp_path: Path, private: Path) -> None:
    path = old_journal(tmp_path / "journal", metrics(3))
    for suffix in (".lock", ".sent", ".sent~", ".sent-1", ".jsonl~"):
        path.with_suffix(suffix).symlink_to(private)
    list(sync(tmp_path / "journal", store))
    list(sync(tmp_path / "journal", store))
    assert private.read_text() == "mine"


def test_a_link_to_a_journal_elsewhere_is_no_journal_of_the_folder(store: str, tmp_path: Path) -> None:
    elsewhere = old_journal(tmp_path / "elsewhere", metrics(3))
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "link.jsonl").symlink_to(elsewhere)
    [run] = sync(tmp_path / "journal", store)
    assert run.state == "pending"
    assert "it is a link" in run.reason


def test_the_server_that_it_names_is_shown_and_not_asked(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "trap.db"
    old_journal(tmp_path / "journal", metrics(3), uri=f"sqlite:///{trap}")
    assert main(["sync", str(tmp_path / "journal")]) == 1
    said = capsys.readouterr().out
    assert f"names the server sqlite:///{trap}" in said
    assert f"grad-callbacks sync {tmp_path / 'journal'} --uri sqlite:///{trap}" in said
    assert not trap.exists()
    assert main(["sync", str(tmp_path / "journal"), "--uri", store]) == 0


def test_ones_own_goes_to_its_server_with_one_short_command(
    client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = JournaledMLFlowLogger(
        "plugin", tracking_uri=store, journal_dir=tmp_path / "mlflow-journal", keep_journal=True
    )
    made.log_metrics({"loss": 1.0}, step=0)
    made.close()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # which MLflow has set for this process
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # so that it is not the default store
    assert main(["sync", str(tmp_path / "mlflow-journal")]) == 0
    assert not (tmp_path / "elsewhere" / "mlflow.db").exists()
    edit(
        next((tmp_path / "mlflow-journal").glob("*.jsonl")),
        lambda entry: entry | {"uri": "sqlite:////no/such/place.db"},
    )
    [run] = sync(tmp_path / "mlflow-journal")
    assert run.state == "pending"
    assert "not written by you" in run.reason


def test_the_default_store_needs_no_agreement(client: MlflowClient, store: str, tmp_path: Path) -> None:
    old_journal(tmp_path / "journal", metrics(3), uri=store)
    assert [run.state for run in sync(tmp_path / "journal")] == ["sent"]
    assert steps_of(client, the_run(client, "plugin").info.run_id, "loss") == [0, 1, 2]


@pytest.mark.parametrize("trust", [False, True])
def test_it_does_not_say_where_artifacts_are_kept(
    trust: bool, client: MlflowClient, store: str, tmp_path: Path, private: Path
) -> None:
    path = old_journal(
        tmp_path / "journal",
        [{"file": f"{'a' * 12}/note.txt", "to": ""}, *metrics(3)],
        artifact_location=private.parent.as_uri(),
    )
    (path.with_suffix("") / ("a" * 12)).mkdir(parents=True)
    (path.with_suffix("") / ("a" * 12) / "note.txt").write_text("note")
    [run] = sync(tmp_path / "journal", store, trust=trust)
    assert (run.state, run.rejected) == ("sent", 0)
    assert artifacts_of(client, the_run(client, "plugin").info.run_id) == ["note.txt"]
    assert (len(tree(private.parent)) > 2) == trust


@pytest.mark.parametrize("by", ["its header", "its note of what was sent", "an entry"])
def test_it_leads_to_no_run_but_its_own(by: str, client: MlflowClient, store: str, tmp_path: Path) -> None:
    other = client.create_run(client.create_experiment("other")).info.run_id
    header = {"run_id": other} if by == "its header" else {}
    entries = [{"m": {"loss": 9.0}, "s": 9, "t": 9, "run": other}] if by == "an entry" else []
    path = old_journal(tmp_path / "journal", [*entries, *metrics(3)], **header)
    if by == "its note of what was sent":
        path.with_suffix(".sent").write_text(json.dumps({store: {"run_id": other, "offset": 0}}))
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.rejected) == ("sent", len(entries))
    assert client.get_run(other).data.metrics == {}
    assert client.get_run(other).info.status == "RUNNING"
    assert steps_of(client, the_run(client, "plugin").info.run_id, "loss") == [0, 1, 2]


def test_a_logger_in_the_same_folder_follows_it_neither(client: MlflowClient, store: str, tmp_path: Path) -> None:
    other = client.create_run(client.create_experiment("other")).info.run_id
    path = old_journal(tmp_path / "mlflow-journal", metrics(3)[:-1], run_id=other)
    sent = old_journal(tmp_path / "mlflow-journal", metrics(3), file="sent")
    sent.with_suffix(".sent").write_text(json.dumps({"somewhere": {"run_id": "x", "offset": sent.stat().st_size}}))
    before = path.read_bytes()
    made = JournaledMLFlowLogger("plugin", tracking_uri=store)
    made.log_metrics({"loss": 1.0}, step=0)
    made.close()
    assert client.get_run(other).info.status == "RUNNING"
    assert path.read_bytes() == before
    assert sent.exists()


BAD_HEADERS: list[dict[str, Any]] = [
    {"id": "x' OR 'a' = 'a"},
    {"id": ["a"]},
    {"id": "../../x"},
    {"experiment": 5},
    {"experiment": ""},
    {"experiment": "x\ud800"},
    {"version": 3},
    {"version": "new"},
]


@pytest.mark.parametrize("header", BAD_HEADERS, ids=str)
def test_a_header_that_cannot_be_used_is_told_and_the_other_journals_are_sent(
    header: dict[str, Any], client: MlflowClient, store: str, tmp_path: Path
) -> None:
    old_journal(tmp_path / "journal", metrics(3), file="bad", **header)
    old_journal(tmp_path / "journal", metrics(3), file="good", experiment="good")
    bad, good = sync(tmp_path / "journal", store)
    assert (bad.state, good.state) == ("pending", "sent")
    assert bad.reason
    assert ("upgrade with: pip install" in bad.reason) == ("version" in header)
    assert steps_of(client, the_run(client, "good").info.run_id, "loss") == [0, 1, 2]


def test_a_key_that_cannot_be_made_costs_one_argument(
    client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", os.devnull)
    made = JournaledMLFlowLogger("plugin", tracking_uri=NO_SERVER, journal_dir=tmp_path / "journal")
    made.log_metrics({"loss": 1.0}, step=0)
    made.close()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # which MLflow has set for this process
    [run] = sync(tmp_path / "journal")
    assert "--uri" in run.reason
    [run] = sync(tmp_path / "journal", store)
    assert run.state == "sent"
