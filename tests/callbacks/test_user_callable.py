"""An ``on_alert`` that raises costs one log entry, never the training."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from grad_callbacks import Alert, GradientGuard, GradientMonitor
from tests.support.helpers import Poisoned, fit, mlp


def spoilt() -> Poisoned:
    return Poisoned(mlp(4, 8, 8, 2), factors={15: 1e4, 16: 1e4, 25: math.nan})


def raised(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "grad_callbacks" and record.exc_info]


@pytest.mark.parametrize("cls", [GradientMonitor, GradientGuard])
def test_what_raises_is_logged_once_with_its_traceback_and_left_out(cls: Any, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Alert] = []

    def send(alert: Alert) -> None:
        calls.append(alert)
        raise ConnectionError("no route to host")

    callback = cls(on_alert=send)
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        run = fit(spoilt(), callback)
    assert run.global_step == 32, "the training goes on"
    assert len(callback.alerts) > 1
    assert calls == callback.alerts[:1]
    [record] = raised(caplog)
    assert "send raised an error and is left out" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ConnectionError


def test_a_notify_that_cannot_start_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("apprise")
    from grad_callbacks.notify import Notify

    monkeypatch.setenv("ALERTS_TO", "json://127.0.0.1:9")
    notify = Notify("env:ALERTS_TO")
    monkeypatch.delenv("ALERTS_TO")  # as in a process of another machine
    monitor = GradientMonitor(on_alert=notify)
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        fit(spoilt(), monitor)
    assert len(monitor.alerts) > 1
    [record] = raised(caplog)
    assert "Notify raised an error and is left out" in record.getMessage()


def test_an_interrupt_passes() -> None:
    def stop(alert: Alert) -> None:
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(spoilt(), GradientMonitor(on_alert=stop))


def test_the_next_run_tries_again() -> None:
    calls: list[Alert] = []

    def send(alert: Alert) -> None:
        calls.append(alert)
        raise ConnectionError

    monitor = GradientMonitor(on_alert=send)
    for _ in range(2):
        fit(spoilt(), monitor)
    assert len(calls) == 2
