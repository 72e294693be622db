"""Journals that are empty or gone, and last lines that were cut off: what that cost is said, in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import JournaledMLFlowLogger, sync
from grad_callbacks.tracking.cli import main
from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.host import Host
from grad_callbacks.tracking.journal.journal import Journal
from tests.support.journals import metrics, old_journal
from tests.support.servers import NO_SERVER, steps_of, the_run


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A journal with a copy of an artifact, of which nothing was sent."""
    made = JournaledMLFlowLogger("plugin", tracking_uri=NO_SERVER, journal_dir=tmp_path / "journal")
    made.experiment.log_text(str(made.run_id), "text", "notes/text.txt")
    made.finalize("success")
    made.close()
    [journal] = (tmp_path / "journal").glob("*.jsonl")
    return journal


def journal_of(folder: Path, *entries: dict[str, object]) -> Path:
    """A journal with these entries, from a process that has ended without a status unless one of them is it."""
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "run.jsonl", {"id": "run", "experiment": "plugin", "start": 1})
    assert journal.take()
    journal.open_for_writing()
    for entry in entries:
        journal.append(entry)
    journal.close()
    return journal.path


def loss(step: int) -> dict[str, object]:
    return {"m": {"loss": float(step)}, "s": step, "t": 1000 + step}


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 4096], ids=["nothing", "a line break", "zeros"])
def test_an_empty_journal_is_told_in_one_line_and_the_others_go_on(
    content: bytes, left: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left.write_bytes(content)
    old_journal(left.parent, metrics(3))
    assert main(["sync", str(left.parent), "--uri", store]) == 1
    told = capsys.readouterr().out.splitlines()
    [line] = [line for line in told if left.stem in line]
    assert "it is empty: nothing of its run is left but 2 copies of artifacts" in line
    assert any(": sent, " in line for line in told)


def test_an_empty_file_alone_is_told_too(store: str, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "run.jsonl").touch()
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.reason.startswith("it is empty: nothing of its run is left. ")) == ("pending", True)
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["run.jsonl"]


def test_an_empty_journal_of_a_living_process_is_not_lost(store: str, tmp_path: Path) -> None:
    """Its disk is full: what it logs is in its memory."""
    (tmp_path / "run.jsonl").touch()
    journal = Journal(tmp_path / "run.jsonl", {"id": "run"})
    assert journal.take()
    assert [run.state for run in sync(tmp_path, store)] == ["running"]
    journal.close()


def test_copies_whose_journal_is_gone_are_told(left: Path, store: str) -> None:
    left.unlink()
    (left.parent / "a folder of the user's").mkdir()
    (left.parent / "a folder of the user's" / "file").touch()
    [run] = sync(left.parent, store)
    assert (run.state, run.journal) == ("pending", left)
    assert run.reason.startswith("it is gone: nothing of its run is left but 2 copies of artifacts")


def test_every_cut_of_the_last_line_is_told_as_one_entry(client: MlflowClient, store: str, tmp_path: Path) -> None:
    """The first entry of a run among them, for which no number before tells how many there were."""
    for before in (0, 3):
        path = journal_of(tmp_path / f"journal-{before}", *map(loss, range(before + 1)))
        raw = path.read_bytes()
        begin = raw.rstrip().rindex(b"\n") + 1
        for length in (begin + 1, begin + 20, len(raw) - 2):
            path.write_bytes(raw[:length])
            forget(path, client)
            [run] = sync(path.parent, store)
            assert (run.state, run.lost) == ("sent", 1), length
            assert run.notes == (f"1 entry is damaged in the journal and is lost: entry {before + 1}",)
            found = the_run(client, "plugin")
            assert steps_of(client, found.info.run_id, "loss") == list(range(before))
            assert found.info.status == "KILLED"
            [again] = sync(path.parent, store)
            assert (again.entries, again.lost, again.notes) == (0, 1, run.notes), "it is told each time"


def test_a_last_line_that_lacks_its_line_break_only_is_sent(client: MlflowClient, store: str, tmp_path: Path) -> None:
    path = journal_of(tmp_path / "journal", loss(0), status_entry("FINISHED"))
    path.write_bytes(path.read_bytes()[:-1])
    [run] = sync(path.parent, store)
    assert (run.state, run.lost, run.notes) == ("sent", 0, ())
    assert the_run(client, "plugin").info.status == "FINISHED"


def test_a_line_that_is_cut_off_after_the_end_of_the_run_is_counted(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    path = journal_of(tmp_path / "journal", loss(0), status_entry("FINISHED"), loss(1))
    path.write_bytes(path.read_bytes()[:-9])
    [run] = sync(path.parent, store)
    assert (run.state, run.lost) == ("sent", 1)
    assert run.notes == ("1 entry is damaged in the journal and is lost: entry 3",)
    assert the_run(client, "plugin").info.status == "FINISHED"


def test_the_line_that_a_process_begins_with_is_no_entry(client: MlflowClient, store: str, tmp_path: Path) -> None:
    """Cut in the copy of the header, or in what a second process writes first: no data are lost."""
    path = journal_of(tmp_path / "journal", loss(0))
    raw = path.read_bytes()
    header = raw.index(b"\n") + 1
    for left in (raw[: header + 30], raw + b'{"opened":{"na', raw + b'{"o'):
        path.write_bytes(left)
        forget(path, client)
        [run] = sync(path.parent, store)
        assert (run.state, run.lost) == ("sent", 0), left[-30:]
        assert not any("is lost" in note for note in run.notes), run.notes


def test_a_line_of_another_machine_may_still_be_written(client: MlflowClient, store: str, tmp_path: Path) -> None:
    path = journal_of(tmp_path / "journal", loss(0))
    elsewhere = Host("another", "another", 1).to_dict()
    journal = Journal(path)
    assert journal.take_existing()
    journal.append({"opened": elsewhere, "t": 5})
    journal.append(loss(1))
    journal.close()
    path.write_bytes(path.read_bytes()[:-9])
    [run] = sync(path.parent, store)
    assert (run.state, run.lost) == ("sent", 1)
    assert run.notes == ("its last line is not complete: 1 entry is lost, unless its process still runs",)


def test_a_long_last_line_is_not_taken_for_a_damaged_one(client: MlflowClient, store: str, tmp_path: Path) -> None:
    """Longer than what is read at the end of the file to find the number of the last entry."""
    path = journal_of(tmp_path / "journal", {"p": {f"name{i}": "x" * 5000 for i in range(20)}})
    [run] = sync(path.parent, store)
    assert (run.state, run.lost, run.notes) == ("sent", 0, ())


def forget(path: Path, client: MlflowClient) -> None:
    """Remove what an earlier sync has sent, and its note of it."""
    for note in path.parent.glob("run.sent*"):
        note.unlink()
    experiment = client.get_experiment_by_name("plugin")
    if experiment is not None:
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)
