"""Of a long run the journal keeps only what was not sent, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import JournaledMLFlowLogger, sync
from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.journal import Journal, journals
from grad_callbacks.tracking.journal.sender import Sender
from tests.support.processes import wait_until
from tests.support.servers import artifacts_of, steps_of, the_run


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what was sent early: a test need not log a megabyte."""
    monkeypatch.setattr("grad_callbacks.tracking.journal.journal.TRIM_SIZE", 2000)


def is_short(file: Path) -> bool:
    return file.stat().st_size < 8000


def opened(folder: Path, **header: Any) -> Journal:
    made = Journal(folder / "run.jsonl", {"id": "run", "experiment": "plugin", "start": 1} | header)
    assert made.take()
    made.open_for_writing()
    return made


def log(journal: Journal, steps: range) -> None:
    for step in steps:
        journal.append({"m": {"loss": float(step)}, "s": step, "t": 1000 + step})


def send(sender: Sender) -> None:
    if sender.run_id is None:
        sender.connect()
    while sender.step():
        pass


def test_what_was_sent_is_removed_while_the_run_goes_on(client: MlflowClient, store: str, tmp_path: Path) -> None:
    journal = opened(tmp_path)
    sender, sizes = Sender(journal, store), []
    for first in range(0, 1000, 100):
        log(journal, range(first, first + 100))
        send(sender)
        assert journal.remove_sent({})
        log(journal, range(1000 + first, 1000 + first + 5))  # of which the server has nothing yet
        sizes.append(journal.size())
    assert max(sizes) < 2000
    journal.append(status_entry("FINISHED"))
    journal.close()
    [run] = sync(tmp_path, store, prune=True)
    assert (run.state, run.lost, run.rejected) == ("sent", 0, 0)
    steps = {*range(1000), *(1000 + first + i for first in range(0, 1000, 100) for i in range(5))}
    found = the_run(client, "plugin")
    assert steps_of(client, found.info.run_id, "loss") == sorted(steps)
    assert found.info.status == "FINISHED"
    assert sorted(file.name for file in tmp_path.glob("run*")) == []


def test_a_journal_that_is_kept_stays_whole(store: str, tmp_path: Path) -> None:
    journal = opened(tmp_path, keep=True)
    sender = Sender(journal, store)
    log(journal, range(200))
    send(sender)
    assert not journal.remove_sent({})
    assert len(list(journal.entries())) == 201


def test_it_waits_for_every_server_that_it_was_sent_to(
    client: MlflowClient, store: str, tmp_path: Path, fresh_store: Path
) -> None:
    shutil.copy(fresh_store, tmp_path / "second.db")
    journal, second = opened(tmp_path), f"sqlite:///{tmp_path}/second.db"
    behind = Sender(journal, second)
    log(journal, range(50))
    send(behind)
    here = Sender(journal, store)
    log(journal, range(50, 300))
    send(here)
    journal.remove_sent({})
    log(journal, range(300, 310))
    journal.append(status_entry("FINISHED"))
    journal.close()
    for server in (second, store):
        [run] = sync(tmp_path, server)
        assert (run.state, run.lost) == ("sent", 0)
        to = MlflowClient(server)
        assert steps_of(to, the_run(to, "plugin").info.run_id, "loss") == list(range(310))


def test_a_new_server_is_told_what_it_lacks(
    client: MlflowClient, store: str, tmp_path: Path, fresh_store: Path
) -> None:
    shutil.copy(fresh_store, tmp_path / "second.db")
    journal, second = opened(tmp_path), f"sqlite:///{tmp_path}/second.db"
    log(journal, range(100))
    send(Sender(journal, store))
    assert journal.remove_sent({})
    log(journal, range(100, 110))
    journal.append(status_entry("FINISHED"))
    journal.close()
    [run] = sync(tmp_path, second)
    assert (run.state, run.lost) == ("sent", 100)
    assert any("sent elsewhere" in note for note in run.notes)
    to = MlflowClient(second)
    assert steps_of(to, the_run(to, "plugin").info.run_id, "loss") == list(range(100, 110))


@pytest.mark.parametrize("name", ["both", ".sent", ".sent-1"])
def test_without_its_notes_it_still_knows_who_has_what(
    name: str, client: MlflowClient, store: str, tmp_path: Path
) -> None:
    journal = opened(tmp_path)
    log(journal, range(100))
    send(Sender(journal, store))
    assert journal.remove_sent({})
    log(journal, range(100, 110))
    journal.append(status_entry("FINISHED"))
    journal.close()
    for suffix in (".sent", ".sent-1") if name == "both" else (name,):
        journal.path.with_suffix(suffix).unlink(missing_ok=True)
    [run] = sync(tmp_path, store)
    assert (run.state, run.lost) == ("sent", 0)
    assert steps_of(client, the_run(client, "plugin").info.run_id, "loss") == list(range(110))


CRASHES = ("os.open", "os.write", "os.fsync", "os.replace")


@pytest.mark.parametrize("call", CRASHES)
def test_a_crash_at_any_moment_leaves_one_of_the_two_files(
    call: str, client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system refuses in the middle: the journal is as it was, and the next process goes on with it."""
    journal = opened(tmp_path)
    log(journal, range(200))
    send(Sender(journal, store))

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        assert not journal.remove_sent({})
    log(journal, range(200, 210))
    (tmp_path / "run.jsonl~").write_text("left by a process that was killed")
    assert journal.remove_sent({})
    log(journal, range(210, 220))
    journal.append(status_entry("FINISHED"))
    journal.close()
    [run] = sync(tmp_path, store)
    assert (run.state, run.lost) == ("sent", 0)
    assert steps_of(client, the_run(client, "plugin").info.run_id, "loss") == list(range(220))


def test_tables_grow_copies_go_and_a_resumed_run_knows_its_tables(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"tracking_uri": store, "journal_dir": tmp_path / "journal"}
    made = JournaledMLFlowLogger("plugin", **arguments)
    run_id, most = str(made.run_id), 0
    for step in range(8):
        for i in range(60):
            made.log_metrics({"loss": float(step)}, step=60 * step + i)
        made.experiment.log_table(run_id, pd.DataFrame({"step": [step]}), "tables/t.json")
        made.experiment.log_text(run_id, "x" * 5000, f"texts/{step}.txt")
        assert made.flush(30)
        [journal] = journals(tmp_path / "journal")
        assert wait_until(partial(is_short, journal.path), 30)
        most = max(most, sum(file.stat().st_size for file in journal.copies.folder.rglob("*") if file.is_file()))
    assert most < 3 * 5000
    made.close()
    again = JournaledMLFlowLogger("plugin", run_id=run_id, **arguments)
    again.experiment.log_table(run_id, {"step": [8]}, "tables/t.json")
    again.finalize("success")
    again.close()
    table = client.load_table("1", "tables/t.json", [run_id])
    assert list(table["step"]) == list(range(9))
    assert steps_of(client, run_id, "loss") == list(range(480))
    paths = artifacts_of(client, run_id)
    assert {f"texts/{step}.txt" for step in range(8)} <= set(paths)
    assert not [file for file in (tmp_path / "journal").rglob("*") if file.is_file()]


def test_copies_in_the_temporary_folder_are_not_counted_as_the_journals(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal")
    (tmp_path / "model.bin").write_bytes(b"x" * 30_000)
    inside = journal.copy_artifact(tmp_path / "model.bin")
    journal.disk_limit = 40_000
    outside = journal.copy_artifact(tmp_path / "model.bin")
    assert os.path.isabs(outside["file"])
    for _ in range(2):  # a second time it is gone already
        journal.copies.remove(outside)
        assert journal.copies.bytes() == 30_000
    journal.copies.remove(inside)
    assert journal.copies.bytes() == 0
    assert not Path(outside["file"]).parent.exists()
