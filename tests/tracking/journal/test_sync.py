from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from grad_callbacks.tracking import JournaledMLFlowLogger, prepare_store, sync
from grad_callbacks.tracking.cli import main
from grad_callbacks.tracking.journal.header import read_header
from grad_callbacks.tracking.journal.host import Host
from grad_callbacks.tracking.journal.journal import Journal
from tests.support.journals import edit, replaced
from tests.support.servers import NO_SERVER, artifacts_of, steps_of, the_run

STEPS = 1500


def offline(folder: Path, *, ends: bool = True, **arguments: Any) -> Path:
    """A run without a server; returns its journal."""
    settings = {"journal_dir": folder, "tracking_uri": NO_SERVER} | arguments
    made = JournaledMLFlowLogger("plugin", "the name", tags={"team": "blue"}, **settings)
    made.log_hyperparams({"lr": 0.1})
    for step in range(STEPS):
        made.log_metrics({"loss": 1.0, "acc": step}, step=step)
    made.experiment.log_text(str(made.run_id), "text", "notes/text.txt")
    if ends:
        made.finalize("success")
    journal = made.journal_path
    made.close()
    assert journal is not None
    return journal


def check(client: MlflowClient, status: str = "FINISHED") -> str:
    run = the_run(client, "plugin")
    assert (run.info.run_name, run.data.tags["team"], run.data.params["lr"]) == ("the name", "blue", "0.1")
    for key in ("loss", "acc"):
        assert steps_of(client, run.info.run_id, key) == list(range(STEPS))
    assert artifacts_of(client, run.info.run_id) == ["context/environment.yaml", "notes/text.txt"]
    assert run.info.status == status
    return str(run.info.run_id)


def states(folder: Path, uri: str | None = None, **arguments: bool) -> list[tuple[str, int]]:
    return [(run.state, run.entries) for run in sync(folder, uri, **arguments)]


def test_a_run_made_offline_is_sent_once_and_truly(client: MlflowClient, store: str, tmp_path: Path) -> None:
    header = read_header(offline(tmp_path / "journal"))
    [first] = sync(tmp_path / "journal", store)
    assert (first.state, first.rejected) == ("sent", 0)
    assert first.entries > STEPS
    assert first.run_id == check(client)
    assert client.get_run(str(first.run_id)).info.start_time == header["start"]
    assert states(tmp_path / "journal", store) == [("sent", 0)]
    check(client)
    assert states(tmp_path / "journal", store, prune=True) == [("sent", 0)]
    assert not list((tmp_path / "journal").iterdir())


def test_a_second_machine_that_knows_nothing_of_the_first_sync_changes_nothing(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    journal = offline(tmp_path / "journal")
    shutil.copytree(tmp_path / "journal", tmp_path / "copy")
    assert states(tmp_path / "journal", store)[0][0] == "sent"
    assert states(tmp_path / "copy", store)[0][0] == "sent"
    check(client)
    assert journal.exists()


@pytest.mark.slow
@pytest.mark.parametrize("back", [0, 20_000, 60_000])
def test_a_sync_that_died_before_it_noted_what_it_sent_repeats_nothing(
    back: int, client: MlflowClient, store: str, tmp_path: Path
) -> None:
    journal = offline(tmp_path / "journal")
    assert states(tmp_path / "journal", store)[0][0] == "sent"
    notes = json.loads(journal.with_suffix(".sent").read_text())
    del notes["crc"]  # edited by hand, it has no checksum
    offsets = (offset for _, offset in Journal(journal).entries())
    notes[store]["offset"] = max((offset for offset in offsets if offset <= back), default=0)
    journal.with_suffix(".sent").write_text(json.dumps(notes))
    [again] = sync(tmp_path / "journal", store)
    assert again.entries > 0
    check(client)


def test_a_journal_goes_to_a_second_server_whole(
    client: MlflowClient, store: str, tmp_path: Path, fresh_store: Path
) -> None:
    offline(tmp_path / "journal")
    states(tmp_path / "journal", store)
    (tmp_path / "second").mkdir()
    shutil.copy(fresh_store, tmp_path / "second" / "mlflow.db")
    second = f"sqlite:///{tmp_path}/second/mlflow.db"
    assert states(tmp_path / "journal", second)[0][0] == "sent"
    check(MlflowClient(second))
    check(client)


@pytest.mark.slow
def test_a_run_that_was_begun_on_one_server_goes_whole_to_another(
    client: MlflowClient, store: str, tmp_path: Path, fresh_store: Path
) -> None:
    offline(tmp_path / "journal", tracking_uri=store, keep_journal=True)
    shutil.copy(fresh_store, tmp_path / "second.db")
    states(tmp_path / "journal", f"sqlite:///{tmp_path}/second.db")
    check(MlflowClient(f"sqlite:///{tmp_path}/second.db"))
    check(client)


def test_an_emptied_store_behind_the_same_address_gets_everything_again(
    client: MlflowClient, store: str, tmp_path: Path, fresh_store: Path
) -> None:
    offline(tmp_path / "journal")
    states(tmp_path / "journal", store)
    journal = next((tmp_path / "journal").glob("*.sent"))
    notes = json.loads(journal.read_text())
    del notes["crc"]
    notes[store] |= {"run_id": "0" * 32, "offset": notes[store]["offset"] - 100}
    journal.write_text(json.dumps(notes))
    client.delete_run(the_run(client, "plugin").info.run_id)
    assert states(tmp_path / "journal", store)[0][1] > STEPS
    check(client)


def test_a_killed_run_is_marked_but_not_one_of_another_machine(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    journal = offline(tmp_path / "journal", ends=False)
    shutil.copytree(tmp_path / "journal", tmp_path / "elsewhere")
    states(tmp_path / "journal", store)
    run_id = check(client, "KILLED")
    client.delete_run(run_id)

    copy = tmp_path / "elsewhere" / journal.name
    edit(copy, replaced(Host.here().boot, "another"))
    edit(copy, replaced(Host.here().name, "elsewhere"))
    assert states(tmp_path / "elsewhere", store)[0][0] == "sent"
    check(client, "RUNNING")
    states(tmp_path / "elsewhere", store, ended=True)
    check(client, "KILLED")


def test_the_journal_of_a_living_process_is_left_to_it(store: str, tmp_path: Path) -> None:
    made = JournaledMLFlowLogger("plugin", tracking_uri=NO_SERVER, journal_dir=tmp_path / "journal")
    made.log_metrics({"a": 1.0})
    assert states(tmp_path / "journal", store) == [("running", 0)]
    made.close()
    assert states(tmp_path / "journal", store)[0][0] == "sent"


def test_what_a_server_refuses_is_counted_and_holds_nothing_up(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    journal = offline(tmp_path / "journal")
    bad = [{"m": {"bad@name": 1.0, "good": 2.0}, "s": 0, "t": 1}, {"m": {"a": 1.0}, "s": 0, "t": 1, "run": "0" * 32}]
    lost = {"file": "gone/gone.txt", "to": ""}
    with journal.open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in [*bad, lost])
    [run] = sync(tmp_path / "journal", store)
    assert (run.state, run.rejected) == ("sent", 3)
    assert client.get_run(check(client)).data.metrics["good"] == 2.0


def test_an_artifact_that_cannot_be_stored_waits_and_the_rest_goes_on(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    (tmp_path / "artifacts").write_text("in the way")
    client.create_experiment("plugin", (tmp_path / "artifacts").as_uri())
    offline(tmp_path / "journal")
    assert states(tmp_path / "journal", store)[0][0] == "pending"
    run = the_run(client, "plugin")
    assert steps_of(client, run.info.run_id, "loss") == list(range(STEPS))
    (tmp_path / "artifacts").unlink()
    assert states(tmp_path / "journal", store) == [("sent", 0)]
    check(client)


def test_a_child_made_offline_finds_its_parent(client: MlflowClient, store: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tracking_uri": NO_SERVER, "journal_dir": tmp_path / "journal"}
    parent = JournaledMLFlowLogger("plugin", "parent", **settings)
    parent_id = str(parent.run_id)
    child = JournaledMLFlowLogger("plugin", "child", tags={"mlflow.parentRunId": parent_id}, **settings)
    assert child.run_id
    child.close()
    parent.close()
    states(tmp_path / "journal", store)
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert runs["child"].data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id != parent_id


def test_an_offline_run_is_resumed_by_the_id_it_had(client: MlflowClient, store: str, tmp_path: Path) -> None:
    run_id = read_header(offline(tmp_path / "journal"))["id"]
    states(tmp_path / "journal", store)
    again = JournaledMLFlowLogger("plugin", run_id=run_id, tracking_uri=store, journal_dir=tmp_path / "journal")
    again.log_metrics({"later": 1.0}, step=0)
    again.finalize("success")
    again.close()
    assert "later" in client.get_run(check(client)).data.metrics


def test_on_the_command_line(
    client: MlflowClient, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offline(tmp_path / "mlflow-journal")
    assert main(["sync", str(tmp_path / "no folder")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["sync", "--tracking-uri", "sqlite:////no/such/folder/mlflow.db"]) == 1
    assert "not all sent: the MLflow store" in capsys.readouterr().out
    assert main(["sync", "--tracking-uri", store]) == 0
    assert f"{check(client)}: sent" in capsys.readouterr().out


def test_a_deleted_run_is_not_written_to(client: MlflowClient, store: str, tmp_path: Path) -> None:
    journal = offline(tmp_path / "journal")
    states(tmp_path / "journal", store)
    run_id = check(client)
    client.delete_run(run_id)
    with journal.open("a") as file:
        file.write(json.dumps({"m": {"late": 1.0}, "s": 0, "t": 1}) + "\n")
    [run] = sync(tmp_path / "journal", store)
    assert run.state == "pending"
    assert "deleted" in run.reason
    with pytest.raises(MlflowException):
        client.log_metric(run_id, "a", 1.0)


@pytest.mark.slow
def test_a_new_store_is_made_for_a_sync(tmp_path: Path) -> None:
    offline(tmp_path / "journal")
    uri = f"sqlite:///{tmp_path}/fresh.db"
    assert states(tmp_path / "journal", uri)[0][0] == "sent"
    check(prepare_store(uri))
