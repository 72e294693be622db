"""A disk without room and no server: what is lost, or would be, is said at once and in numbers."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import JournaledMLFlowLogger, sync
from tests.support.processes import wait_until
from tests.support.servers import NO_SERVER, artifacts_of, steps_of, the_run

STEPS = 300


SIZES = (300, 1000, 1500, 9000)  # bytes that fit: not even the header, the header, a little more


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file of this process can grow beyond ``size`` bytes: the system refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def logger(folder: str | Path, uri: str = NO_SERVER, **arguments: Any) -> JournaledMLFlowLogger:
    return JournaledMLFlowLogger("plugin", tracking_uri=uri, journal_dir=folder, finalize_timeout=3, **arguments)


def log(to: JournaledMLFlowLogger) -> None:
    for step in range(STEPS):
        to.log_metrics({"loss": float(step)}, step=step)
    to.finalize("success")


def test_a_disk_that_is_full_from_the_start(caplog: pytest.LogCaptureFixture) -> None:
    made = logger("/dev/full/journal")
    made.log_metrics({"first": 1.0}, step=0)
    assert "in memory only" in caplog.text, "it is said at once"
    log(made)
    assert made._session is not None
    waiting = len(made._session._writer.journal.in_memory())
    made.close()
    assert f"{waiting} entries of run" in caplog.text
    assert "are lost" in caplog.text
    assert waiting > STEPS
    assert "grad-callbacks sync" not in caplog.text, "there is nothing that it could send"


def test_a_disk_that_is_full_from_the_start_and_a_server_that_answers(
    client: MlflowClient, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = logger("/dev/full/journal", store)
    log(made)
    made.close()
    run = the_run(client, "plugin")
    assert steps_of(client, run.info.run_id, "loss") == list(range(STEPS))
    assert artifacts_of(client, run.info.run_id) == ["context/environment.yaml"]
    assert run.info.status == "FINISHED"
    assert "are lost" not in caplog.text


@pytest.mark.parametrize("size", SIZES)
def test_a_disk_that_gets_full_loses_what_it_says_and_the_rest_is_sent_later(
    size: int, client: MlflowClient, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with room(size):
        made = logger(tmp_path / "journal")
        made.log_metrics({"first": 0.0}, step=0)
        assert ("in memory only" in caplog.text) == (size <= 1000)
        log(made)
        assert made._session is not None
        waiting = len(made._session._writer.journal.in_memory())
        assert "in memory only" in caplog.text
        made.close()
    [told] = re.findall(r"(\d+) entries of run \w+ are lost", caplog.text)
    assert int(told) == waiting
    rest = list(sync(tmp_path / "journal", store))
    assert (f"grad-callbacks sync {tmp_path / 'journal'}" in caplog.text) == bool(rest)
    assert rest or not list((tmp_path / "journal").glob("*/*/*")), "copies that nothing names are removed"
    steps = []
    for run in rest:
        assert (run.state, run.lost, run.notes) == ("sent", 0, ())
        steps = steps_of(client, the_run(client, "plugin").info.run_id, "loss")
        assert steps == list(range(len(steps)))
    more = int(told) - (STEPS - len(steps))
    assert 1 <= more <= 5, "beside the missing steps: how the run ended, twice, the environment, tags, the first one"
    assert size < 9000 or more == 2, "how it ended is a tag and a status"


def test_a_disk_that_has_room_again_takes_what_waited(
    client: MlflowClient, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = logger(tmp_path / "journal")
    with room(5000):
        made.log_metrics({"loss": 0.0}, step=0)
        for step in range(1, 100):
            made.log_metrics({"loss": float(step)}, step=step)
    assert made._session is not None
    journal = made._session._writer.journal
    assert journal.unwritten
    assert wait_until(lambda: not journal.unwritten, 40), "it tries again with each request"
    for step in range(100, STEPS):
        made.log_metrics({"loss": float(step)}, step=step)
    made.finalize("success")
    made.close()
    assert "is written again" in caplog.text
    assert "are lost" not in caplog.text
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.lost) == ("sent", 0)
    assert steps_of(client, the_run(client, "plugin").info.run_id, "loss") == list(range(STEPS))


def test_memory_that_is_full_too_is_told_once_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grad_callbacks.tracking.journal.journal.MEMORY_LIMIT", 5000)
    made = logger("/dev/full/journal")
    log(made)
    assert caplog.text.count("memory is full too") == 1
    made.close()
    [told] = re.findall(r"(\d+) entries of run \w+ are lost", caplog.text)
    assert int(told) > STEPS


def test_a_run_of_a_trial_that_finds_no_room_is_told(caplog: pytest.LogCaptureFixture) -> None:
    made = logger("/dev/full/journal")
    made.log_child("an arm", {}, [{"m": {"loss": 1.0}, "s": 0, "t": 1}])
    made.close()
    assert "1 entries of the run an arm are lost" in caplog.text
