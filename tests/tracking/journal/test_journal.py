from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from grad_callbacks.tracking.journal.entries import batch_entries, metrics_entry, params_entry
from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.host import SILENCE, Host
from grad_callbacks.tracking.journal.journal import Journal, journals
from tests.support.processes import ForkServer, wait_until


def journal(folder: Path, **arguments: int) -> Journal:
    made = Journal(folder / "run.jsonl", {"id": "run", "experiment": "e", "start": 1}, **arguments)
    assert made.take()
    made.open_for_writing()
    return made


def entries(of: Journal) -> list[Entry]:
    return [entry for entry, _ in of.entries()]


def test_entries_come_back_in_order_behind_the_header(tmp_path: Path) -> None:
    written = journal(tmp_path)
    for step in range(20_000):
        written.append({"m": {"loss": step}})
    header, *rest = entries(Journal(tmp_path / "run.jsonl"))
    assert header["id"] == "run"
    assert [entry["m"]["loss"] for entry in rest] == list(range(20_000))


def test_an_incomplete_last_line_is_skipped_and_the_next_process_writes_on(tmp_path: Path) -> None:
    first = journal(tmp_path)
    first.append({"m": {"loss": 1.0}})
    first.close()
    with (tmp_path / "run.jsonl").open("ab") as file:
        file.write(b'{"m": {"lo')
    again = Journal(tmp_path / "run.jsonl")
    assert len(entries(again)) == 2
    assert again.end() < again.size()
    again.open_for_writing()
    again.append({"m": {"loss": 2.0}})
    assert [entry["m"]["loss"] for entry in entries(again) if "m" in entry] == [1.0, 2.0]
    assert again.end() == again.size()


def test_what_was_written_outlives_a_kill_at_any_moment(fork_server: ForkServer, tmp_path: Path) -> None:
    code = """
from pathlib import Path
from grad_callbacks.tracking.journal.journal import Journal
journal = Journal(Path("run.jsonl"), {"id": "run"})
assert journal.take()
for step in range(10**9):
    journal.append({"m": {"loss": step}})
    print(step, flush=True)
"""
    process = fork_server.start(code, tmp_path)
    assert wait_until(lambda: len(process.said) > 100), process.said
    process.send(signal.SIGKILL)
    process.wait()
    printed = process.said.splitlines()
    left = Journal(tmp_path / "run.jsonl")
    steps = [entry["m"]["loss"] for entry in entries(left) if "m" in entry]
    assert steps == list(range(len(steps)))
    assert len(steps) >= len(printed)
    assert left.take(), "the system frees the lock"
    assert left.last_status() == "RUNNING"


def test_a_journal_belongs_to_one_process(tmp_path: Path) -> None:
    mine = journal(tmp_path)
    assert not Journal(tmp_path / "run.jsonl").take()
    mine.close()
    assert Journal(tmp_path / "run.jsonl").take()


@pytest.mark.parametrize("place", ["file/journal", "/dev/null/journal"])
def test_where_the_disk_takes_nothing_memory_does_up_to_a_limit(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("grad_callbacks.tracking.journal.journal.MEMORY_LIMIT", 1000)
    unwritable = Journal(tmp_path / place / "run.jsonl", {"id": "run"})
    unwritable.open_for_writing()
    for step in range(100):
        unwritable.append({"m": {"loss": step}})
    kept = unwritable.in_memory()
    assert [entry["m"]["loss"] for entry, _ in kept] == list(range(len(kept)))
    assert sum(size for _, size in kept) <= 1000
    assert len(kept) + unwritable.dropped == 100
    assert unwritable.write_error is not None
    copy = unwritable.copy_artifact(tmp_path / "file")
    assert unwritable.copies.path_of(copy).read_text() == "in the way"


def test_beyond_the_limit_entries_wait_in_memory_and_go_to_disk_when_there_is_room(tmp_path: Path) -> None:
    full = journal(tmp_path, disk_limit=1000)
    for step in range(100):
        full.append({"m": {"loss": step}})
    assert full.size() <= 1000
    on_disk = len(entries(full)) - 1
    assert [entry["m"]["loss"] for entry, _ in full.in_memory()] == list(range(on_disk, 100))
    full.disk_limit = 10_000
    full.close()
    assert [entry["m"]["loss"] for entry in entries(full)[1:]] == list(range(100))


def test_copies_that_were_sent_make_room_before_anything_is_refused(tmp_path: Path) -> None:
    kept = journal(tmp_path, disk_limit=100_000)
    (tmp_path / "model.bin").write_bytes(b"x" * 30_000)
    for _ in range(10):
        entry = kept.copy_artifact(tmp_path / "model.bin")
        assert not Path(entry["file"]).is_absolute(), "it is in the journal's folder"
        kept.release_copy(entry)
    assert kept.bytes() <= 100_000


def test_a_run_is_wholly_sent_when_it_has_ended_and_a_server_has_its_last_line(tmp_path: Path) -> None:
    run = journal(tmp_path)
    run.append({"m": {"loss": 1.0}})
    run.positions.save("a", {"offset": run.size()})
    assert not run.is_wholly_sent(), "it has not ended"
    run.append({"status": "FINISHED", "t": 1})
    assert not run.is_wholly_sent(), "its end was not sent"
    run.positions.save("b", {"offset": run.size(), "deferred": [{"file": "x"}]})
    assert not run.is_wholly_sent(), "an artifact was not stored"
    run.positions.save("b", {"offset": run.size()})
    assert Journal(run.path).is_wholly_sent()
    run.remove()
    assert not list(tmp_path.iterdir())


def test_other_files_are_no_journals(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "binary.jsonl").write_bytes(os.urandom(100))
    journal(tmp_path)
    assert [found.id for found in journals(tmp_path)] == ["run"]


@pytest.mark.parametrize(
    ("host", "silent", "gone"),
    [
        (Host.here(), 0, True),
        (Host("another", Host.here().boot, 1), 0, True),  # a container on this machine: its lock was free
        (Host(Host.here().name, "an earlier start", 1), 0, False),  # or a machine of the same name
        (Host(Host.here().name, "an earlier start", 1), SILENCE + 1, True),
        (Host("another", "another", 1), 10 * SILENCE, False),
    ],
)
def test_a_process_is_gone_only_where_that_can_be_known(host: Host, silent: float, gone: bool) -> None:
    assert Host.from_dict(host.to_dict()) == host
    assert host.is_gone(time.time() - silent) is gone


def test_what_is_no_number_is_left_out_and_the_rest_kept() -> None:
    import torch

    entry = metrics_entry({"a": torch.tensor(1.5), "b": "text", "c": None, "d": float("nan")}, step=None)
    assert list(entry["m"]) == ["a", "d"]
    assert entry["s"] == 0
    assert json.loads(json.dumps(entry))["m"]["a"] == 1.5


def test_a_batch_keeps_every_metric_also_of_one_name_and_time() -> None:
    from mlflow.entities import Metric

    batch = [Metric("a", 1.0, 5, 0), Metric("b", 2.0, 5, 0), Metric("a", 3.0, 5, 0), Metric("a", 4.0, 6, 1)]
    assert [(entry["t"], entry["s"], entry["m"]) for entry in batch_entries(batch)] == [
        (5, 0, {"a": 1.0, "b": 2.0}),
        (5, 0, {"a": 3.0}),
        (6, 1, {"a": 4.0}),
    ]


def test_long_parameters_are_cut_and_returned_in_full_and_secrets_masked() -> None:
    entry, long = params_entry({"text": "x" * 7000, "api_key": "abc", "use_cls_token": True})
    assert len(entry["p"]["text"]) == 6000
    assert long == {"text": "x" * 7000}
    assert entry["p"]["api_key"] == "***"
    assert entry["p"]["use_cls_token"] == "True"
