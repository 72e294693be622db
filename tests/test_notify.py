"""Alerts on their way to people and to other loggers."""

from __future__ import annotations

import json
import logging
import pickle
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from grad_callbacks import Alert, GradientGuard, GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger
from tests.support.helpers import Poisoned, fit, mlp
from tests.support.processes import wait_until

pytest.importorskip("apprise")

from grad_callbacks.notify import Notify, message

NOTHING_THERE = "json://127.0.0.1:9"


class Receiver:
    """A webhook on loopback that keeps what it is sent."""

    def __init__(self, delay: float = 0.0, status: int = 200) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(delay)
                receiver.received.append((time.monotonic(), json.loads(body)))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.received: list[tuple[float, dict[str, str]]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop its thread too: one that serves a closed socket is busy until the end of the tests."""
        self.server.shutdown()
        self.server.server_close()

    @property
    def titles(self) -> list[str]:
        return [body["title"] for _, body in self.received]

    def wait(self, count: int) -> None:
        wait_until(lambda: len(self.received) >= count)
        assert len(self.received) == count


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def alert(step: int = 5, severity: Any = "critical") -> Alert:
    return Alert("exploding", severity, step, ("head",), "norm 51 is 15 times", {}, "bad batch", "clip by norm.")


def test_an_alert_arrives_with_all_that_one_must_know(receiver: Receiver) -> None:
    notify = Notify(receiver.address, name="resnet")
    notify(alert())
    receiver.wait(1)
    notify.close()
    [(_, body)] = receiver.received
    assert body["title"] == "resnet: exploding gradients at step 5 (critical)"
    assert body["message"].splitlines() == [
        "step 5: exploding gradients (critical): norm 51 is 15 times",
        "likely cause: bad batch (seen in head)",
        "what to change: clip by norm",
    ]


def test_no_more_messages_than_the_rate_allows(receiver: Receiver) -> None:
    notify = Notify(receiver.address, at_most_every=0.5)
    notify(alert(0))
    receiver.wait(1)
    for step in range(1, 300):
        notify(alert(step))
    receiver.wait(2)
    first, second = (arrived for arrived, _ in receiver.received)
    assert second - first >= 0.45
    assert receiver.titles[1].endswith("at step 1 (critical), and 298 more")
    notify.close()
    assert len(receiver.received) == 2


def test_what_waits_is_sent_at_the_end(receiver: Receiver) -> None:
    notify = Notify([receiver.address], at_most_every=3600)
    notify(alert(0))
    receiver.wait(1)
    for step in (1, 2):
        notify(alert(step))
    notify.close()
    assert [title.split("at ")[1] for title in receiver.titles] == [
        "step 0 (critical)",
        "step 1 (critical), and 1 more",
    ]


def test_severities_choose(receiver: Receiver) -> None:
    notify = Notify(receiver.address, severities=["critical"])
    notify(alert(1, "warning"))
    notify(alert(2, "critical"))
    notify.close()
    assert receiver.titles == ["exploding gradients at step 2 (critical)"]


def test_it_serves_a_training(receiver: Receiver) -> None:
    guard = GradientGuard(on_alert=Notify(receiver.address))
    fit(Poisoned(mlp(4, 8, 8, 2), factors={20: 1e3}), guard)
    guard.on_alert.close()
    assert receiver.titles[0].startswith(f"{guard.alerts[0].kind} gradients at step 20")


@pytest.mark.parametrize("kind", ["refused", "hanging", "failing"])
def test_a_bad_channel_never_disturbs_training(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    hanging = socket.create_server(("127.0.0.1", 0))  # takes the connection, and never answers
    failing = Receiver(status=500)
    address = {
        "refused": NOTHING_THERE,
        "hanging": f"json://127.0.0.1:{hanging.getsockname()[1]}?rto=1&cto=1",
        "failing": failing.address,
    }[kind]
    notify = Notify(address)
    monitor = GradientMonitor(on_alert=notify)
    started = time.monotonic()
    fit(Poisoned(mlp(4, 8, 8, 2), factors={20: 1e3}), monitor)
    assert monitor.alerts
    assert time.monotonic() - started < 5
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        notify.close()
    hanging.close()
    failing.close()


@pytest.mark.parametrize("status", [200, 500])
def test_no_library_logs_an_address_though_everything_is_logged(status: int, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(status=status)
    with caplog.at_level(1):
        notify = Notify([f"{receiver.address}/SECRETTOKEN", f"{NOTHING_THERE}/SECRETTOKEN"])
        notify(alert())
        notify.close()
        for wrong in ("slack://SECRETTOKEN", "nosuch://SECRETTOKEN"):
            with pytest.raises(ValueError, match="is no address"):
                Notify(wrong)
    assert len(receiver.received) == 1
    receiver.close()
    mine = [record.getMessage() for record in caplog.records if record.name == "grad_callbacks"]
    assert mine == ["the alert 'exploding gradients at step 5 (critical)' did not get through to every address"]
    assert any("Connection error" in record.getMessage() for record in caplog.records), "the reason is told"
    assert "SECRETTOKEN" not in caplog.text
    assert "S...N" not in caplog.text


def test_a_run_holds_no_part_of_an_address(receiver: Receiver, client: MlflowClient, tmp_path: Path) -> None:
    secret = f"{receiver.address}/SECRETTOKEN"
    plain = secret.replace("json:", "http:")  # looks like any address
    logger = JournaledMLFlowLogger("plugin", tags={"to": secret}, keep_journal=True)
    logger.log_hyperparams({"on_alert": {"_target_": "grad_callbacks.notify.Notify", "addresses": [plain]}})
    logger.log_hyperparams({"callbacks.on_alert.addresses": plain, "note": f"told {secret}"})
    model = Poisoned(mlp(4, 8, 8, 2), factors={20: 1e3})
    trainer = fit(model, GradientGuard(on_alert=Notify(secret)), logger=logger)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    logger.close()
    receiver.wait(1)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "run.html" for file in files)
    assert [file.name for file in files if b"SECRETTOKEN" in file.read_bytes()] == []


def test_the_end_does_not_wait_for_a_channel_that_hangs() -> None:
    hanging = socket.create_server(("127.0.0.1", 0))
    notify = Notify(f"json://127.0.0.1:{hanging.getsockname()[1]}?rto=30")
    notify(alert())
    started = time.monotonic()
    notify.close(timeout=0.5)
    assert time.monotonic() - started < 2
    hanging.close()


def test_it_can_be_copied_while_its_thread_runs(receiver: Receiver) -> None:
    notify = Notify(receiver.address, name="a run")
    notify(alert())
    receiver.wait(1)
    copy = pickle.loads(pickle.dumps(notify))
    copy(alert(7))
    copy.close()
    notify.close()
    assert receiver.titles[1] == "a run: exploding gradients at step 7 (critical)"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"addresses": "nonsense"}, "addresses[0] (no scheme) is no address"),
        ({"addresses": ["json://host", "nosuch://SECRET"]}, "addresses[1] (nosuch) is no address"),
        ({"addresses": []}, "at least one address"),
        ({"addresses": "json://host", "at_most_every": 0}, "at_most_every must be"),
        ({"addresses": "json://host", "severities": ["info"]}, "severities must be"),
        ({"addresses": "json://host", "severities": "critical"}, "severities must be a list of texts, got type str"),
        ({"addresses": 3}, "addresses must be a list of texts, got type int"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        Notify(**arguments)
    assert "SECRET" not in str(caught.value)


def test_an_address_can_stay_in_the_environment(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the variable ALERTS_TO is not set"):
        Notify("env:ALERTS_TO")
    monkeypatch.setenv("ALERTS_TO", f"{receiver.address}, {receiver.address}?x=1")
    notify = Notify(["env:ALERTS_TO"])
    assert receiver.address not in repr(notify.__dict__)
    notify(alert())
    notify.close()
    assert len(receiver.received) == 2


def test_it_can_be_written_in_a_config() -> None:
    from hydra.utils import instantiate

    config = {
        "_target_": "grad_callbacks.GradientMonitor",
        "on_alert": {"_target_": "grad_callbacks.notify.Notify", "addresses": ["json://host"], "at_most_every": 30},
    }
    assert instantiate(config).on_alert.at_most_every == 30


def test_a_message_tells_a_few_alerts_and_counts_the_rest() -> None:
    title, text = message([alert(step) for step in range(10)], 250)
    assert title.endswith("and 249 more")
    assert text.count("Also step") == 3


def test_an_alert_that_cannot_be_put_into_words_does_not_end_the_sending(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    notify = Notify(receiver.address, at_most_every=0.01)
    broken = alert(3)
    object.__setattr__(broken, "message", None)  # the constructor refuses it
    notify(broken)
    time.sleep(0.2)
    notify(alert(4))
    receiver.wait(1)
    notify.close()
    assert receiver.titles == ["exploding gradients at step 4 (critical)"]
    assert "an alert of step 3 could not be sent: AttributeError" in caplog.text


def test_an_alert_of_a_kind_of_ones_own() -> None:
    title, text = message([replace(alert(7, "warning"), kind="плато")], 1)
    assert title == "плато at step 7 (warning)"
    assert text.startswith("step 7: плато (warning): norm 51")
