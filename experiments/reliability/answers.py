"""Rows: servers that answer wrongly for a while, and then well."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from experiments.reliability.cases import Case, Row, judge
from experiments.reliability.prepared import prepare
from experiments.reliability.proxy import LOGIN, Fault, Script
from experiments.reliability.saying import synced
from experiments.reliability.workplace import Workplace

CLIENT_ERRORS = (400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418)
CLIENT_ERRORS += (421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499)
SERVER_ERRORS = (500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 520, 521, 522, 523, 524, 530, 599)
HTML = (("Content-Type", "text/html"),)
JSON = (("Content-Type", "application/json"),)
TARGETS = {"all": "", "batch": "log-batch", "create": "runs/create", "artifact": "artifacts", "status": "runs/update"}
ROUNDS = 3  # calls of sync while the server answers wrongly


def _error(status: int, body: str) -> Fault:
    if body == "html":
        return Fault(status, LOGIN, HTML)
    if body == "mlflow":
        text = json.dumps({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "try again later"})
        return Fault(status, text.encode(), JSON)
    return Fault(status)


def _until(count: int, target: str, fault: Fault, start: int = 0) -> Script:
    """Answer the first ``count`` requests to a path wrongly, beginning with the one numbered ``start``."""
    seen = [0]

    def script(method: str, path: str, number: int) -> Fault | None:
        if target not in path or path.endswith("/health"):
            return None
        seen[0] += 1
        return fault if start < seen[0] <= start + count else None

    return script


RUNNING = "is still being written by its process"
CLOSING = 30  # seconds that a closed logger's thread may take to end


def _replayed(place: Workplace, case: str, script: Script) -> Case:
    """Send a journal through the proxy three times while it answers wrongly, and then when it is well."""
    place.server.empty()
    journal = place.prepared.copy_to(place.new_folder())
    place.proxy.play(script)
    said = ""
    for _ in range(ROUNDS):
        said += synced(journal.folder, place.proxy.uri)
    place.proxy.be_well()
    said = said.replace("exit status 1", "") + synced(journal.folder, place.proxy.uri)
    if "CRASHED" in said:
        return Case(case, "ended", "sync ended with an error", said[said.index("CRASHED") :][:160])
    return judge(case, [journal.header, *journal.logged], place.server.runs(), said, journal.journal.stem)


def _logged_live(place: Workplace, case: str, script: Script) -> Case:
    """Log through the proxy while it answers wrongly, let it be well, and send what is left."""
    place.server.empty()
    place.proxy.play(script)
    journal = prepare(place.new_folder(), place.proxy.uri)
    place.proxy.be_well()
    deadline = time.monotonic() + CLOSING
    while RUNNING in (said := synced(journal.folder, place.proxy.uri)) and time.monotonic() < deadline:
        time.sleep(0.2)  # the logger's thread, in this process, is still at its last request
    return judge(case, [journal.header, *journal.logged], place.server.runs(), said, journal.journal.stem)


def _status(place: Workplace, case: str) -> Case:
    status, body, target = case.split()
    fault = _error(int(status), body)
    return _replayed(place, case, _until(10**6, TARGETS[target], fault))


def _live_status(place: Workplace, case: str) -> Case:
    status, body, target = case.split()
    return _logged_live(place, case, _until(10**6, TARGETS[target], _error(int(status), body)))


def _bodies() -> dict[str, Fault]:
    faults = {
        "HTML with 200": Fault(200, LOGIN, HTML),
        "HTML with 200, called JSON": Fault(200, LOGIN, JSON),
        "nothing with 200": Fault(200, b"", JSON),
        "empty object with 200": Fault(200, b"{}", JSON),
        "list with 200": Fault(200, b"[]", JSON),
        "cut JSON with 200": Fault(200, b'{"run": {"info": ', JSON),
        "HTML with 400": Fault(400, LOGIN, HTML),
        "204": Fault(204),
        "connection dropped": Fault(kind="drop"),
        "connection dropped when done": Fault(kind="drop", is_served=True),
        "500 when done": Fault(500, b"", is_served=True),
        "504 when done": Fault(504, LOGIN, HTML, is_served=True),
        "body cut": Fault(kind="cut"),
        "slow": Fault(kind="slow", seconds=2.5),
    }
    for code in (301, 302, 303, 307, 308):
        faults[f"{code} to a login page"] = Fault(code, b"", (("Location", "/login"),))
    return faults


BODIES = _bodies()


def _body(place: Workplace, case: str) -> Case:
    kind, target, count = case.rsplit(" / ", 2)
    fault, script = BODIES[kind], _until(int(count), TARGETS[target], BODIES[kind])
    if "login" in kind:  # the page that they lead to

        def led(method: str, path: str, number: int) -> Fault | None:
            return Fault(200, LOGIN, HTML) if path == "/login" else script(method, path, number)

        return _replayed(place, case, led)
    assert fault
    return _replayed(place, case, script)


def _middle(place: Workplace, case: str) -> Case:
    """One request of all, whichever it is, is answered wrongly."""
    number, kind = case.split(maxsplit=1)
    return _replayed(place, case, _until(1, "", BODIES[kind], start=int(number)))


def _statuses(codes: tuple[int, ...], bodies: tuple[str, ...]) -> list[str]:
    """Every body on all requests and on those that carry most; only HTML on the others."""
    return [
        f"{code} {body} {target}"
        for code in codes
        for body in bodies
        for target in TARGETS
        if body == "html" or target in ("all", "batch")
    ]


def _counted(kinds: list[str], counts: tuple[int, ...]) -> list[str]:
    pairs = [(kind, target) for kind in kinds for target in TARGETS]
    upload = ("204", "artifact")  # a right answer
    return [f"{kind} / {target} / {count}" for kind, target in pairs if (kind, target) != upload for count in counts]


Tried = Callable[[Workplace, str], Case]
WHILE = "for three calls of `sync`, then well"

ROWS = [
    Row(
        "answers",
        "HTTP 4xx",
        f"every status with an HTML, an MLflow and no body, on all requests or one kind, {WHILE}",
        _statuses(CLIENT_ERRORS, ("html", "mlflow", "none")),
        _status,
        quick=12,
    ),
    Row(
        "answers",
        "HTTP 5xx",
        f"the same, {WHILE}",
        _statuses(SERVER_ERRORS, ("html", "mlflow", "none")),
        _status,
        quick=8,
    ),
    Row(
        "answers",
        "HTTP 4xx and 5xx while logging",
        "a logger runs into them and closes; then well, then `sync`",
        _statuses((400, 401, 403, 404, 413, 429, 500, 503), ("html", "none")),
        _live_status,
        quick=4,
    ),
    Row(
        "answers",
        "wrong bodies, redirects, dropped and slow",
        f"{', '.join(list(BODIES)[:3])} and {len(BODIES) - 3} more, once or {WHILE}",
        _counted([kind for kind in BODIES if kind != "slow"], (1, 10**6)) + _counted(["slow"], (1,)),
        _body,
        quick=12,
    ),
    Row(
        "answers",
        "one wrong answer",
        "one request out of all is answered wrongly, each in its turn",
        [
            f"{number} {kind}"
            for number in range(12)
            for kind in ("connection dropped when done", "500 when done", "body cut", "HTML with 200", "HTML with 400")
        ],
        _middle,
        quick=6,
    ),
]
