"""What stands between a journal and its server may answer in the server's place: nothing is lost or dropped for it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import sync
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.journals import metrics, old_journal
from tests.support.servers import Server, artifacts_of, steps_of, the_run

pytestmark = pytest.mark.slow

STEPS = 60
HTML = "<html><body>Something else than MLflow answers here</body></html>"
FAULTS = {
    "400, HTML": Fault(400, HTML),
    "400, other JSON": Fault(400, '{"message": "bad request"}'),
    "400, other JSON with a number": Fault(400, '{"error_code": 400, "message": "bad request"}'),
    "401": Fault(401, HTML),
    "403, MLflow": Fault(403, '{"error_code": "PERMISSION_DENIED", "message": "no"}'),
    "403, HTML": Fault(403, HTML),
    "404, HTML": Fault(404, HTML),
    "408": Fault(408),
    "413": Fault(413, HTML),
    "429": Fault(429, "slow down"),
    "500, MLflow": Fault(500, '{"error_code": "INTERNAL_ERROR", "message": "oops"}'),
    "500, HTML": Fault(500, HTML),
    "502": Fault(502, HTML),
    "503": Fault(503, HTML),
    "504": Fault(504, HTML),
    "507": Fault(507),
    "200, HTML": Fault(200, HTML),
    "a login page": Fault(302, "", {"Location": "/login"}),
    "no answer": Fault(0),
    "half an answer": Fault(cut=True),
}
SOME = ("400, HTML", "401", "404, HTML", "500, MLflow", "503", "200, HTML", "no answer", "half an answer")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fresh_store: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(fresh_store.read_bytes())
    made = Server(folder)
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    made = FaultyProxy(server.port)
    yield made
    made.close()


def check(server: Server, experiment: str, steps: int = STEPS) -> None:
    client = MlflowClient(server.uri)
    run = the_run(client, experiment)
    assert steps_of(client, run.info.run_id, "loss") == list(range(steps))
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("name", "writes"), [*((name, True) for name in FAULTS), *((name, False) for name in SOME)], ids=str
)
def test_an_answer_that_is_not_mlflows_loses_nothing(
    name: str, writes: bool, server: Server, proxy: FaultyProxy, tmp_path: Path
) -> None:
    experiment = f"{name} {writes}"
    old_journal(tmp_path, metrics(STEPS), experiment=experiment)

    def decide(method: str, path: str, _: bytes) -> Fault | None:
        if path == "/login":
            return Fault(200, HTML)
        return FAULTS[name] if not writes or path.endswith("/log-batch") else None

    proxy.decide = decide
    [first] = sync(tmp_path, proxy.uri)
    told = first.rejected + first.lost
    if (name, writes) == ("413", True):  # not even a single value is small enough
        assert (first.state, told) == ("sent", STEPS)
        return
    assert (first.state, told) == ("pending", 0), first
    assert first.reason
    proxy.decide = lambda *_: None
    [second] = sync(tmp_path, proxy.uri)
    assert (second.state, second.rejected) == ("sent", 0)
    check(server, experiment)


@pytest.mark.parametrize("name", SOME)
def test_one_that_comes_now_and_then_loses_nothing_either(
    name: str, server: Server, proxy: FaultyProxy, tmp_path: Path
) -> None:
    experiment, chance = f"now and then {name}", random.Random(0)
    old_journal(tmp_path, metrics(STEPS), experiment=experiment)

    def decide(method: str, path: str, _: bytes) -> Fault | None:
        return FAULTS[name] if chance.random() < 0.2 else None

    proxy.decide = decide
    for _ in range(30):
        [run] = sync(tmp_path, proxy.uri)
        if run.state == "sent":
            break
    assert (run.state, run.rejected) == ("sent", 0), run
    check(server, experiment)


@pytest.mark.parametrize("fault", [Fault(200, HTML), Fault(302, "", {"Location": "/login"}), Fault(200)], ids=str)
def test_an_artifact_that_a_login_page_took_is_sent_again(
    fault: Fault, server: Server, proxy: FaultyProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = old_journal(
        tmp_path, [{"file": f"{'a' * 12}/note.txt", "to": "n"}, *metrics(STEPS)], experiment=f"upload {fault}"
    )
    (path.with_suffix("") / ("a" * 12)).mkdir(parents=True)
    (path.with_suffix("") / ("a" * 12) / "note.txt").write_text("note")

    def decide(method: str, path: str, _: bytes) -> Fault | None:
        return Fault(200, HTML) if path == "/login" else fault if method == "PUT" else None

    proxy.decide = decide
    [first] = sync(tmp_path, proxy.uri)
    assert (first.state, first.rejected) == ("pending", 0)
    assert "artifact n/note.txt cannot be stored now, and is tried again later: " in caplog.text
    proxy.decide = lambda *_: None
    [second] = sync(tmp_path, proxy.uri)
    assert (second.state, second.rejected) == ("sent", 0)
    client = MlflowClient(server.uri)
    assert artifacts_of(client, the_run(client, f"upload {fault}").info.run_id) == ["n/note.txt"]


def test_a_request_that_is_too_large_is_split(server: Server, proxy: FaultyProxy, tmp_path: Path) -> None:
    old_journal(tmp_path, metrics(STEPS), experiment="small requests")
    proxy.decide = lambda method, path, body: Fault(413, HTML) if len(body) > 1000 else None
    [run] = sync(tmp_path, proxy.uri)
    assert (run.state, run.rejected) == ("sent", 0)
    check(server, "small requests")


def test_a_value_for_which_the_server_breaks_waits_alone(
    server: Server, proxy: FaultyProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error 500 may pass: the value is not dropped, and holds nothing up."""
    old_journal(tmp_path, metrics(STEPS), experiment="one value")

    def decide(method: str, path: str, body: bytes) -> Fault | None:
        sent = json.loads(body).get("metrics", []) if path.endswith("/log-batch") else []
        return FAULTS["500, MLflow"] if any(int(metric["step"]) == 7 for metric in sent) else None

    proxy.decide = decide
    [first] = sync(tmp_path, proxy.uri)
    assert (first.state, first.rejected) == ("pending", 0)
    assert "1 entries could not be stored" in first.reason
    assert "metric loss at step 7 cannot be stored now, and is tried again later: " in caplog.text
    client = MlflowClient(server.uri)
    run = the_run(client, "one value")
    assert run.info.status == "FINISHED"
    assert len(steps_of(client, run.info.run_id, "loss")) == STEPS - 1
    proxy.decide = lambda *_: None
    [second] = sync(tmp_path, proxy.uri)
    assert second.state == "sent"
    check(server, "one value")
