"""Alerts that reach people: Slack, Teams, e-mail, webhooks and all else that Apprise can address."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from grad_callbacks._utils.log_redaction import SILENCE, discretion
from grad_callbacks._utils.validation import positive
from grad_callbacks.events import Alert

log = logging.getLogger("grad_callbacks")

GOODBYE = 5.0  # seconds that the end of the program waits for a last message
_VARIABLE = "env:"
MAX_WAITING = 100  # alerts that are told one by one in a message; the rest is counted


class Notify:
    """Sends alerts to people, at most one message in so many seconds; give it as ``on_alert``.

    The first alert is sent at once. What comes within ``at_most_every`` seconds of a message waits for the next one,
    which tells them together; what still waits when the program ends is sent then. A thread does the sending: a channel
    that hangs or fails costs a line in the log, never the training.

    Needs Apprise: ``pip install grad-callbacks[notify]``. Its addresses look like ``slack://tokenA/tokenB/tokenC``,
    ``mailtos://user:password@example.org``, ``workflows://host/...`` for Teams, ``json://host/path`` for a webhook of
    your own. They are secrets, of which neither logs nor trackers are told. ``env:NAME`` in their place reads them from
    that environment variable, and keeps them out of configs and checkpoints as well.

    Args:
        addresses: One or several of Apprise's addresses, or ``env:NAME`` for those in a variable, separated by commas.
        at_most_every: Seconds between two messages.
        name: What the messages call the run.
        severities: Which alerts are sent.

    Raises:
        ImportError: If Apprise is not installed.
        ValueError: If an address is none of Apprise's, a variable is not set, or another argument is wrong.

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
        self.addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        self.at_most_every = positive("at_most_every", at_most_every)
        self.name = name
        self.severities = tuple(severities)
        if unknown := set(self.severities) - {"warning", "critical"}:
            raise ValueError(f"severities must be of 'warning' and 'critical', got {sorted(unknown)}")
        _channels(self.addresses)  # a wrong address is told now, not at the first alert
        self._box: _Mailbox | None = None

    def __call__(self, alert: Alert) -> None:
        """Take an alert; returns at once."""
        if alert.severity not in self.severities:
            return
        if self._box is None:
            self._box = _Mailbox(self.addresses, self.at_most_every, self.name)
            atexit.register(self.close)
        self._box.put(alert)

    def close(self, timeout: float = GOODBYE) -> None:
        """Send what still waits, without regard to the rate, and end the thread.

        Args:
            timeout: Seconds to wait for that at most.
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
        self.channels = _channels(addresses)
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
                _send(self.channels, *message(alerts, count, self.name))
                due = time.monotonic() + self.at_most_every


def message(alerts: Sequence[Alert], count: int, name: str = "") -> tuple[str, str]:
    """Return title and text of a message.

    Args:
        alerts: The first of those that it tells, at least one.
        count: How many there were.
        name: What it calls the run.
    """
    first = alerts[0]
    of = f"{name}: " if name else ""
    more = f", and {count - 1} more" if count > 1 else ""
    title = f"{of}{first.kind} gradients at step {first.step} ({first.severity}){more}"
    told = [
        f"{first.message.rstrip('.')}.",
        *([f"Layers: {', '.join(first.layers)}."] if first.layers else []),
        f"Likely cause: {first.cause.rstrip('.')}.",
        f"Advice: {first.advice.rstrip('.')}.",
    ]
    told += [f"Also step {a.step}: {a.kind} ({a.severity}), {a.message.rstrip('.')}." for a in alerts[1:4]]
    return title, "\n".join(told)


def _send(channels: Any, title: str, text: str) -> None:
    try:
        with discretion():
            got_through = channels.notify(title=title, body=text)
        if not got_through:
            log.warning("the alert %r did not get through to every address", title)
    except Exception as error:  # whatever a channel raises
        log.warning("the alert %r could not be sent: %s", title, type(error).__name__)


def _channels(addresses: Sequence[str]) -> Any:
    try:
        from apprise import Apprise
    except ImportError as error:
        raise ImportError("Notify needs Apprise: pip install grad-callbacks[notify]") from error
    channels = Apprise()
    for place, address in enumerate(addresses):
        told = str(address)
        if told.startswith(_VARIABLE):
            told = os.environ.get(told.removeprefix(_VARIABLE), "")
            if not told:
                raise ValueError(f"addresses[{place}]: the variable {address.removeprefix(_VARIABLE)} is not set")
        with discretion(SILENCE):
            is_known = channels.add(told)
        if not is_known:  # not told as it is: it may be a secret
            kind = str(address).split("://", 1)[0] if "://" in str(address) else "no scheme"
            raise ValueError(f"addresses[{place}] ({kind}) is no address that Apprise knows")
    if not addresses:
        raise ValueError("addresses must name at least one address")
    return channels
