"""Send alerts to people: by Slack, Teams, e-mail, webhooks and whatever else Apprise supports."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from grad_callbacks._utils.log_redaction import NOTHING, redacted_logs
from grad_callbacks._utils.validation import positive
from grad_callbacks.events import Alert
from grad_callbacks.reporting.alert_text import alert_lines, kind_text

log = logging.getLogger("grad_callbacks")

LAST_MESSAGE_SECONDS = 5.0  # that the end of the program waits for a last message
MAX_WAITING = 100  # alerts that are kept for the next message; the rest is counted
MAX_ALSO = 3  # alerts that a message names after its first
_VARIABLE = "env:"


class Notify:
    """Sends alerts to people, at most one message per ``at_most_every`` seconds; pass it as ``on_alert``.

    The first alert is sent at once. Alerts that come within ``at_most_every`` seconds of a message wait for the next
    message, which reports them together; what still waits when the program ends is sent then. A thread does the
    sending: a channel that hangs or fails costs a line in the log, never the training.

    Needs Apprise: ``pip install grad-callbacks[notify]``. Its addresses look like ``slack://tokenA/tokenB/tokenC``,
    ``mailtos://user:password@example.org``, ``workflows://host/...`` for Teams, ``json://host/path`` for a webhook of
    your own. They are secrets, and appear in neither logs nor trackers. ``env:NAME`` in their place reads them from
    that environment variable, and keeps them out of configs and checkpoints as well.

    Args:
        addresses: One or several of Apprise's addresses, or ``env:NAME`` for those in a variable, separated by commas.
        at_most_every: Seconds between two messages, 60 by default.
        name: What the messages call the run.
        severities: Which alerts are sent: ``"warning"``, ``"critical"`` or both, the default.

    Raises:
        ImportError: If Apprise is not installed.
        ValueError: If Apprise does not know an address, a variable is not set, or another argument is wrong.

    Example::

        from grad_callbacks import GradientGuard
        from grad_callbacks.notify import Notify

        guard = GradientGuard(on_alert=Notify("json://localhost:8000", at_most_every=60))
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        at_most_every: float = 60.0,
        name: str = "",
        severities: Sequence[str] = ("warning", "critical"),
    ) -> None:
        self.addresses = [addresses] if isinstance(addresses, str) else _list("addresses", addresses)
        self.at_most_every = positive("at_most_every", at_most_every)
        self.name = name
        self.severities = tuple(_list("severities", severities))
        if set(self.severities) - {"warning", "critical"}:
            raise ValueError(f"severities must be a list of 'warning' and 'critical', got {list(self.severities)}")
        _parse(self.addresses)  # a wrong address is an error now, not at the first alert
        self._box: _Mailbox | None = None

    def __call__(self, alert: Alert) -> None:
        """Take an alert; returns at once."""
        if alert.severity not in self.severities:
            return
        if self._box is None:
            self._box = _Mailbox(self.addresses, self.at_most_every, self.name)
            atexit.register(self.close)
        self._box.put(alert)

    def close(self, timeout: float = LAST_MESSAGE_SECONDS) -> None:
        """Send what still waits, whatever the rate, and end the thread.

        Args:
            timeout: Seconds to wait at most.
        """
        box, self._box = self._box, None
        if box is not None:
            box.close(timeout)
            atexit.unregister(self.close)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_box": None}  # a thread cannot be copied


class _Mailbox:
    """Alerts that wait, and the thread that sends them."""

    def __init__(self, addresses: Sequence[str], at_most_every: float, name: str) -> None:
        self.apprise = _parse(addresses)
        self.at_most_every = at_most_every
        self.name = name
        self.waiting: list[Alert] = []
        self.count = 0
        self.is_closing = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.run, name="grad-callbacks-notify", daemon=True)
        self.thread.start()

    def put(self, alert: Alert) -> None:
        with self.changed:
            self.count += 1
            if len(self.waiting) < MAX_WAITING:
                self.waiting.append(alert)
            self.changed.notify_all()

    def close(self, timeout: float) -> None:
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()
        self.thread.join(timeout)

    def run(self) -> None:
        due = 0.0
        while not self.is_closing or self.count:
            with self.changed:
                self.changed.wait_for(lambda: self.count or self.is_closing)
                self.changed.wait_for(lambda: self.is_closing, timeout=max(0.0, due - time.monotonic()))
                alerts, count = self.waiting, self.count
                self.waiting, self.count = [], 0
            if count:
                _send(self.apprise, alerts, count, self.name)
                due = time.monotonic() + self.at_most_every


def message(alerts: Sequence[Alert], count: int, name: str = "") -> tuple[str, str]:
    """Return title and text of a message.

    Args:
        alerts: The alerts of which it names the first few; at least one.
        count: How many there were.
        name: What it calls the run.
    """
    first = alerts[0]
    run = f"{name}: " if name else ""
    more = f", and {count - 1} more" if count > 1 else ""
    title = f"{run}{kind_text(first.kind)} at step {first.step} ({first.severity}){more}"
    also = [f"Also {alert_lines(alert)[0]}" for alert in alerts[1 : 1 + MAX_ALSO]]
    return title, "\n".join([*alert_lines(first), *also])


def _send(apprise: Any, alerts: Sequence[Alert], count: int, name: str) -> None:
    try:
        title, text = message(alerts, count, name)
        with redacted_logs():
            is_sent = apprise.notify(title=title, body=text)
        if not is_sent:
            log.warning("the alert %r did not get through to every address", title)
    except Exception as error:  # whatever a channel raises; its text may hold an address
        log.warning("an alert of step %s could not be sent: %s", alerts[0].step, type(error).__name__)


def _list(name: str, value: Sequence[str]) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name} must be a list of texts, got type {type(value).__name__}")  # it may hold a secret
    return list(value)


def _parse(addresses: Sequence[str]) -> Any:
    """Return Apprise's object for some addresses."""
    try:
        from apprise import Apprise
    except ImportError as error:
        raise ImportError("Notify needs Apprise: pip install grad-callbacks[notify]") from error
    apprise = Apprise()
    for place, address in enumerate(addresses):
        url = str(address)
        if url.startswith(_VARIABLE):
            url = os.environ.get(url.removeprefix(_VARIABLE), "")
            if not url:
                raise ValueError(f"addresses[{place}]: the variable {address.removeprefix(_VARIABLE)} is not set")
        with redacted_logs(NOTHING):
            is_known = apprise.add(url)
        if not is_known:  # the message leaves the address out: it may be a secret
            kind = str(address).split("://", 1)[0] if "://" in str(address) else "no scheme"
            raise ValueError(f"addresses[{place}] ({kind}) is no address that Apprise knows")
    if not addresses:
        raise ValueError("addresses must name at least one address")
    return apprise
