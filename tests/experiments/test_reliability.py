"""The reliability table: its judges find lies, its results are kept, its quick part is survived."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import BadStatusLine, HTTPConnection, IncompleteRead
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from experiments.reliability import told
from experiments.reliability.answers import BODIES
from experiments.reliability.cases import COMPLETE, SURVIVED, TOLD, Case, Hung, Row, judge, time_limit
from experiments.reliability.prepared import prepare
from experiments.reliability.proxy import Fault, Proxy
from experiments.reliability.report import markdown, summary
from experiments.reliability.results import Results
from experiments.reliability.rows import ROWS
from experiments.reliability.saying import synced
from experiments.reliability.stores import Store
from experiments.reliability.trials import try_all
from experiments.reliability.truth import ANY, Found, Item, metrics, single
from experiments.reliability.workplace import Workplace
from tests.support.processes import ROOT, without_a_store

LOGGED = [metrics({"loss": step}, step) for step in range(5)] + [single("status", "FINISHED")]


def run(*items: Item) -> Found:
    return Found("run", Counter(items))


def everything() -> list[Item]:
    return [item for entry in LOGGED for item in entry]


@pytest.mark.parametrize(
    ("items", "said", "outcome"),
    [
        (everything(), "sent, 6 new entries", COMPLETE),
        (everything()[1:], "sent, 6 new entries", "silent"),
        (everything()[1:], "sent, 5 new entries\n1 damaged line is lost", TOLD),
        (everything()[2:], "1 damaged line is lost", "silent"),
        (everything()[2:], "sent, 2 new entries", "silent"),
        (everything()[1:], "not all sent: 't'\nexit status 1", "stuck"),
        ([*everything(), everything()[0]], "sent, 7 new entries", "twice"),
        ([*everything(), ("metric", "loss", "0", "7.0")], "", "wrong"),
        ([*everything(), ("tag", "grad.journal", "x")], "", COMPLETE),
    ],
)
def test_what_is_on_the_server_is_compared_with_what_was_logged_and_told(
    items: list[Item], said: str, outcome: str
) -> None:
    assert judge("case", LOGGED, [run(*items)], said).outcome == outcome


def test_a_second_run_is_a_duplicate_and_a_journal_that_is_named_is_told() -> None:
    assert judge("case", LOGGED, [run(*everything()), run()], "").outcome == "twice"
    assert judge("case", LOGGED, [], "abc.jsonl: not sent, its header is damaged", "abc").outcome == TOLD
    assert judge("case", LOGGED, [], "other.jsonl: not sent, its header is damaged", "abc").outcome == "silent"


def test_an_artifact_that_is_named_is_told_but_not_a_metric() -> None:
    artifact = single("artifact", "context/environment.yaml", ANY)
    said = "the environment could not be logged"
    assert judge("case", [artifact], [run()], said).outcome == TOLD
    assert judge("case", [metrics({"environment": 1}, 0)], [run()], said).outcome == "silent"


def test_numbers_of_what_was_sent_tell_no_loss() -> None:
    assert told.numbers("sent, 6 new entries, 2 refused") == [2]
    assert not told.accounts_for("sent, 6 new entries", {6})
    assert not told.accounts_for("it has format 1: damage cannot be seen\n1 journals are not all sent", {1})
    assert not told.accounts_for("cannot write: [Errno 28], entry 28 of 99 bytes is lost", {28, 99})
    assert told.accounts_for("2 lines are damaged\n1 entry was refused", {3})


def test_a_case_that_does_not_end_is_stopped() -> None:
    with pytest.raises(Hung), time_limit(1):
        threading.Event().wait(30)


def test_results_are_kept_for_the_same_code_only(tmp_path: Path) -> None:
    results = Results(tmp_path, "group")
    results.add("row", Case("1", COMPLETE, "", "x" * 10_000))
    results.save()
    assert Results(tmp_path, "group").of("row")["1"].outcome == COMPLETE
    assert len(Results(tmp_path, "group").of("row")["1"].told) < 10_000
    assert not Results(tmp_path, "group", is_fresh=True).of("row")
    kept = json.loads((tmp_path / "group.json").read_text())
    (tmp_path / "group.json").write_text(json.dumps(kept | {"code": "other"}))
    assert not Results(tmp_path, "group").of("row")


def test_the_table_lists_what_was_not_survived(tmp_path: Path) -> None:
    row = Row("group", "a fault", "is made", ["1", "2", "3"], lambda place, name: Case(name, COMPLETE))
    cases = [Case("1", COMPLETE), Case("2", "silent", "2 of 3 entries missing"), Case("3", "not run")]
    text = markdown([(row, cases)], tmp_path, is_quick=True)
    assert "| a fault | is made | 2 of 3 | **1** | 1 | 0 |" in text
    assert "- `2`: silent. 2 of 3 entries missing" in text
    assert "`3`" not in text
    assert not summary(row, cases).is_survived


def test_something_of_every_row_is_tried_before_the_rest(tmp_path: Path) -> None:
    tried: list[str] = []

    def try_one(place: object, name: str) -> Case:
        tried.append(name)
        return Case(name, COMPLETE)

    rows = [Row("group", letter, "is made", [f"{letter}{i}" for i in range(4)], try_one, quick=2) for letter in "ab"]
    results, place = {"group": Results(tmp_path, "group")}, Workplace()
    place.prepared = prepare(tmp_path / "prepared")
    try_all(rows, place, results, is_quick=True)
    assert tried == ["a0", "a2", "b0", "b2"]
    try_all(rows, place, results, is_quick=False)
    assert sorted(tried[4:]) == ["a1", "a3", "b1", "b3"], "the rest, and nothing again"
    try_all(rows[:1], place, results, is_quick=False, case="a3")
    assert tried[8:] == ["a3"], "a case that is named is tried again"
    place.close()


def test_every_row_has_cases_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert len(set(row.cases)) == len(row.cases) > 0
        assert set(row.chosen(True)) <= set(row.cases)


@pytest.fixture
def behind() -> Iterator[HTTPServer]:
    """A server that counts its requests and answers with a text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.served += 1
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"answer")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.served = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_proxy_answers_as_its_script_says(behind: HTTPServer) -> None:
    proxy = Proxy(behind.server_address[1])
    faults = {1: Fault(503, b"later"), 2: BODIES["body cut"], 3: BODIES["connection dropped when done"]}
    proxy.play(lambda method, path, number: faults.get(number))
    assert urlopen(proxy.uri, timeout=10).read() == b"answer"
    with pytest.raises(HTTPError, match="503"):
        urlopen(proxy.uri, timeout=10)
    assert behind.served == 1
    with pytest.raises(IncompleteRead):
        urlopen(proxy.uri, timeout=10).read()
    connection = HTTPConnection(proxy.uri.removeprefix("http://"), timeout=10)
    connection.request("GET", "/")
    with pytest.raises((BadStatusLine, ConnectionError)):
        connection.getresponse()
    connection.close()
    assert (behind.served, proxy.requests, proxy.faults) == (3, 4, 3)
    assert urlopen(proxy.uri, timeout=10).read() == b"answer"
    proxy.close()


def test_a_store_is_read_and_emptied_without_the_package(
    fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store", fresh_store)
    journal = prepare(tmp_path / "journals")
    said = synced(journal.folder, store.uri)
    assert said.endswith("exit status 0\n"), said
    logged = [journal.header, *journal.logged]
    assert judge("case", logged, store.runs(), said).outcome == COMPLETE
    assert judge("case", [*logged, metrics({"loss": 1}, 99)], store.runs(), said).outcome == "silent"
    store.empty()
    assert store.runs() == []


@pytest.mark.slow
def test_the_quick_part_is_survived(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.reliability", "--subset", "quick"]
    command += ["--results", str(tmp_path / "results"), "--output", str(tmp_path / "reliability.md")]
    done = subprocess.run(command, cwd=ROOT, env=without_a_store(), capture_output=True, text=True, timeout=900)
    text = (tmp_path / "reliability.md").read_text()
    for row in ROWS:
        assert f"| {row.name} |" in text
    tried = {
        (row, case["name"]): case["outcome"]
        for file in (tmp_path / "results").glob("*.json")
        for row, cases in json.loads(file.read_text())["rows"].items()
        for case in cases
    }
    assert len(tried) == sum(len(row.chosen(True)) for row in ROWS)
    bad = {case for case, outcome in tried.items() if outcome not in (*SURVIVED, "not run")}
    assert not bad, done.stdout + done.stderr + text
    assert done.returncode == 0
