"""Damaged files: what is missing is told exactly, the rest is sent, and nothing twice."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import JournaledMLFlowLogger, Synced, sync
from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.journal import Journal, journals
from tests.support.journals import flip, metrics, old_journal
from tests.support.servers import NO_SERVER, artifacts_of, steps_of, the_run

STEPS = 40


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A journal that was written without a server: three entries of another kind, a metric in each step, an end."""
    journal = Journal(tmp_path / "journal" / "run.jsonl", {"id": "run", "experiment": "plugin", "start": 1})
    journal.path.parent.mkdir()
    assert journal.take()
    journal.open_for_writing()
    journal.append({"p": {"lr": "0.1"}})
    for step in range(STEPS):
        journal.append({"m": {"loss": float(step)}, "s": step, "t": 1000 + step})
    journal.append(status_entry("FINISHED"))
    journal.close()
    return journal.path


def fresh(client: MlflowClient) -> None:
    """Remove what an earlier sync has sent."""
    experiment = client.get_experiment_by_name("plugin")
    if experiment is not None:
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)


def arrived(client: MlflowClient) -> int:
    """How many entries of the journal are on the server; none may be there twice or with another value."""
    run = the_run(client, "plugin")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert all(metric.value == metric.step == metric.timestamp - 1000 for metric in history)
    assert len({metric.step for metric in history}) == len(history)
    return len(history) + ("lr" in run.data.params) + (run.info.status == "FINISHED")


def test_any_flipped_bit_costs_what_is_told_and_no_more(
    made: Path, client: MlflowClient, store: str, tmp_path: Path
) -> None:
    """Sixty of all bits; in the line breaks, too, and in the header."""
    raw, chance = made.read_bytes(), random.Random(0)
    breaks = [8 * place + 1 for place, byte in enumerate(raw) if byte == ord("\n")]
    header = 8 * raw.index(b"\n")
    bits = [*chance.sample(range(8 * len(raw)), 40), *chance.sample(breaks, 8), *breaks[:3], breaks[-1]]
    for bit in [*bits, *chance.sample(range(header), 8)]:
        made.write_bytes(raw)
        for note in made.parent.glob("run.sent*"):
            note.unlink()
        fresh(client)
        flip(made, bit)
        [run] = sync(made.parent, store)
        assert run.state == "sent", (bit, run)
        missing = STEPS + 2 - arrived(client)
        killed = the_run(client, "plugin").info.status == "KILLED"  # its last line is damaged: it has no end
        assert run.lost == missing or (killed and run.notes), (bit, run, missing)
        assert missing <= 2


def test_a_file_that_was_cut_is_told_and_the_run_is_killed(made: Path, client: MlflowClient, store: str) -> None:
    raw = made.read_bytes()
    begin = raw.index(b'{"m"')
    for length in range(begin + 5, len(raw), 397):
        made.write_bytes(raw[:length])
        for note in made.parent.glob("run.sent*"):
            note.unlink()
        fresh(client)
        [run] = sync(made.parent, store)
        assert run.state == "sent"
        complete = raw[:length].count(b"\n") - 2
        assert arrived(client) == complete
        assert the_run(client, "plugin").info.status == "KILLED"
        assert bool(run.notes) == (raw[length - 1 : length] != b"\n")


def test_lines_that_are_gone_are_counted_and_named(made: Path, client: MlflowClient, store: str) -> None:
    lines = made.read_bytes().splitlines(keepends=True)
    made.write_bytes(b"".join([*lines[:10], b"\0" * 300 + b"\n", *lines[17:]]))
    [run] = sync(made.parent, store)
    assert (run.state, run.lost) == ("sent", 7)
    assert any("entries 9-15" in note for note in run.notes)
    assert arrived(client) == STEPS + 2 - 7
    [again] = sync(made.parent, store)
    assert (again.entries, again.lost) == (0, 7), "it is told each time"


@pytest.mark.parametrize("lines", [1, 2])
def test_a_damaged_header_has_a_copy(lines: int, made: Path, client: MlflowClient, store: str) -> None:
    raw = made.read_bytes().splitlines(keepends=True)
    made.write_bytes(b"".join([*[b"damaged\n"] * lines, *raw[lines:]]))
    old_journal(made.parent, metrics(3), experiment="other")
    runs = {run.journal.stem: run for run in sync(made.parent, store)}
    assert runs["old"].state == "sent", "the others go on"
    if lines == 1:
        assert (runs["run"].state, runs["run"].lost) == ("sent", 0)
        assert arrived(client) == STEPS + 2
    else:
        assert runs["run"].state == "pending"
        assert "header is damaged" in runs["run"].reason


def test_damage_in_an_old_journal_is_told_as_far_as_it_can_be_seen(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    path = old_journal(tmp_path / "journal", metrics(STEPS))
    lines = path.read_text().splitlines(keepends=True)
    lines[5], lines[9] = lines[5].replace('"m"', '"l"'), lines[9].replace("{", "[", 1)
    path.write_text("".join(lines))
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.lost) == ("sent", 2)
    assert len(steps_of(client, the_run(client, "plugin").info.run_id, "loss")) == STEPS - 2
    assert any("format 1" in note for note in run.notes)


NOTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "one bit": lambda raw: raw.replace(b"offset", b"offseu"),
    "no JSON": lambda raw: b"\0" * len(raw),
    "other types": lambda raw: json.dumps({"a": {"offset": "x", "deferred": 5}}).encode(),
    "a list": lambda raw: b"[1, 2]",
    "an offset within a line": lambda raw: json.dumps({"s": {"run_id": None, "offset": 777}}).encode(),
}


@pytest.mark.parametrize("both", [False, True], ids=["the last", "the last two"])
@pytest.mark.parametrize("name", NOTES)
def test_a_damaged_note_of_what_was_sent_costs_nothing(
    name: str, both: bool, made: Path, client: MlflowClient, store: str
) -> None:
    old_journal(made.parent, metrics(3), experiment="other")
    list(sync(made.parent, store))
    for note in [made.with_suffix(".sent"), *([made.with_suffix(".sent-1")] if both else [])]:
        note.write_bytes(NOTES[name](note.read_bytes()))
    with made.open("a") as file:
        file.write(json.dumps({"m": {"loss": float(STEPS)}, "s": STEPS, "t": 1000 + STEPS}) + "\n")
    with made.open("a") as file:
        file.write(json.dumps({"status": "FINISHED", "t": 5}) + "\n")
    runs = {run.journal.stem: run for run in sync(made.parent, store)}
    assert {run.state for run in runs.values()} == {"sent"}
    assert (runs["run"].rejected, runs["run"].lost) == (0, 0)
    assert arrived(client) == STEPS + 3
    if "offset" not in name:
        assert any("damaged" in note for note in runs["run"].notes)


def test_a_journal_shorter_than_what_was_sent_goes_on_from_there(
    client: MlflowClient, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a power cut: the server has what the disk has lost."""
    arguments = {"tracking_uri": store, "journal_dir": tmp_path / "journal", "keep_journal": True}
    first = JournaledMLFlowLogger("plugin", **arguments)  # type: ignore[arg-type]
    for step in range(100):
        first.log_metrics({"loss": float(step)}, step=step)
    first.finalize("success")
    run_id = first.run_id
    first.close()
    [journal] = (tmp_path / "journal").glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-4000])
    again = JournaledMLFlowLogger("plugin", run_id=run_id, **arguments)  # type: ignore[arg-type]
    for step in range(100, 130):
        again.log_metrics({"loss": float(step)}, step=step)
    again.finalize("success")
    again.close()
    assert "shorter than what" in caplog.text
    assert steps_of(client, str(run_id), "loss") == list(range(130))
    assert client.get_run(str(run_id)).info.status == "FINISHED"
    [run] = sync(tmp_path / "journal", store)
    assert run.entries == 0


def test_a_copy_that_was_removed_when_it_was_sent_is_not_missed_when_the_note_of_it_is_gone(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    made = JournaledMLFlowLogger("plugin", tracking_uri=NO_SERVER, journal_dir=tmp_path / "journal")
    made.experiment.log_text(str(made.run_id), "text", "notes/text.txt")
    made.finalize("success")
    made.close()
    list(sync(tmp_path / "journal", store))
    [journal] = journals(tmp_path / "journal")
    shutil.rmtree(journal.copies.folder)
    journal.positions.remove()
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.rejected) == ("sent", 0)


def test_a_status_that_is_only_guessed_does_not_replace_the_one_that_the_server_has(
    made: Path, client: MlflowClient, store: str
) -> None:
    list(sync(made.parent, store))
    made.write_bytes(made.read_bytes()[:-100])  # the end of the run is gone
    [run] = sync(made.parent, store)
    assert (run.state, run.lost) == ("sent", 0)
    assert not any("not complete" in note for note in run.notes), "the server has that line"
    assert arrived(client) == STEPS + 2


def test_a_damaged_copy_of_an_artifact_is_told_and_not_sent(client: MlflowClient, store: str, tmp_path: Path) -> None:
    made = JournaledMLFlowLogger("plugin", tracking_uri=NO_SERVER, journal_dir=tmp_path / "journal")
    for name in ("good", "bad"):
        made.experiment.log_text(str(made.run_id), name * 50, f"{name}.txt")
    made.finalize("success")
    made.close()
    [copy] = (tmp_path / "journal").rglob("bad.txt")
    flip(copy, 77)
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.rejected) == ("sent", 1)
    paths = artifacts_of(client, the_run(client, "plugin").info.run_id)
    assert paths == ["context/environment.yaml", "good.txt"]


def test_the_next_process_numbers_on_and_a_line_that_was_cut_counts(
    made: Path, client: MlflowClient, store: str
) -> None:
    raw = made.read_bytes().splitlines(keepends=True)
    made.write_bytes(b"".join(raw[:-2]) + raw[-2][:20])
    with_more = Journal(made)
    assert with_more.take_existing()
    with_more.append({"m": {"loss": float(STEPS)}, "s": STEPS, "t": 1000 + STEPS})
    with_more.append(status_entry("FINISHED"))
    with_more.close()
    runs: list[Synced] = list(sync(made.parent, store))
    assert [(run.state, run.lost) for run in runs] == [("sent", 1)]
    assert any(f"entry {STEPS + 1}" in note for note in runs[0].notes)
