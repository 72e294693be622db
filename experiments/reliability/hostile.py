"""Rows: journals made by somebody else, which must not reach beyond their folder (harmless probes)."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from experiments.reliability.cases import COMPLETE, TOLD, Case, Row
from experiments.reliability.hostile_probes import PROBES, SECRET, Trap
from experiments.reliability.saying import listening, synced
from experiments.reliability.workplace import Workplace


def _sent(place: Workplace, case: str) -> Case:
    """Send it, and remove what is sent; a journal of the user's own in the same folder must be sent, too."""
    how, _, probe = case.partition(": ")
    store = place.server if how == "HTTP" else place.store
    store.empty()
    trap = Trap(place.new_folder())
    PROBES[probe](trap)
    trap.write()
    own = _own_journal(place, trap.journals)
    if how == "next logger":
        _claim_that_all_is_sent(trap)
        said = _next_logger(trap.journals, store.uri)
    else:
        said = synced(trap.journals, store.uri, "--prune")
    if "CRASHED" in said:
        return Case(case, "ended", f"sync ended with an error: {said[said.index('CRASHED') :][:160]}")
    items = [item for run in store.runs() for item in run.items]
    if any(SECRET in part for item in items for part in item):
        return Case(case, "harm", "a file from outside of the folder is on the server", said)
    if harm := trap.harm():
        return Case(case, "harm", harm[:300], said)
    if how != "next logger" and ("metric", "acc", "3", "-3.25") not in items:
        return Case(case, "silent", f"the user's own journal {own} was not sent", said)
    arrived = ("metric", "loss", "0", "1.5") in items
    return Case(case, COMPLETE if arrived else TOLD, "", said)


def _own_journal(place: Workplace, folder: Path) -> str:
    own = place.prepared
    for file in own.folder.iterdir():
        target = folder / file.name
        if file.is_file():
            target.write_bytes(file.read_bytes())
    own.copy_to(folder / "unused")
    for part in (folder / "unused").iterdir():
        if part.is_dir():
            part.rename(folder / part.name)
    return own.journal.stem


def _claim_that_all_is_sent(trap: Trap) -> None:
    """So that the next logger would remove the journal."""
    sent = trap.journals / f"{trap.name}.sent"
    if not sent.is_symlink() and not sent.exists():
        sent.write_text(json.dumps({"http://127.0.0.1:9": {"run_id": "1" * 32, "offset": 10**9}}))


def _next_logger(folder: Path, uri: str) -> str:
    from grad_callbacks.tracking import JournaledMLFlowLogger

    with listening() as text:
        logger = JournaledMLFlowLogger("next", tracking_uri=uri, journal_dir=folder, finalize_timeout=5)
        logger.log_metrics({"good": 1.0}, 0)
        logger.finalize("success")
        logger.close()
    return text.getvalue()


def _address(place: Workplace, case: str) -> Case:
    """A journal names a server of its own: nothing may be sent there unless the user agrees."""
    from grad_callbacks.tracking.cli import main

    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def _note(self) -> None:
            asked.append(self.path)
            self.send_error(500)

        do_GET = do_POST = do_PUT = _note

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trap = Trap(place.new_folder())
    trap.header["uri"] = f"http://127.0.0.1:{server.server_address[1]}"
    if case == "with credentials":
        trap.header["uri"] = trap.header["uri"].replace("//", "//user:word@")
    trap.write()
    with listening() as text:
        if case == "next logger":
            text.write(_next_logger(trap.journals, place.store.uri))
        else:
            text.write(f"exit status {main(['sync', str(trap.journals)])}\n")
    server.shutdown()
    server.server_close()
    said = text.getvalue()
    if asked:
        return Case(case, "harm", f"a server that the journal names was asked {len(asked)} times", said)
    return Case(case, TOLD, "", said)


CASES = [f"{how}: {probe}" for how in ("SQLite", "HTTP", "next logger") for probe in PROBES]
ROWS = [
    Row(
        "hostile",
        "hostile journals",
        f"{len(PROBES)} probes; sent, pruned, and met by the next logger",
        CASES,
        _sent,
        16,
    ),
    Row(
        "hostile",
        "a journal names its server",
        "`sync` without an address",
        ["sync", "with credentials", "next logger"],
        _address,
    ),
]
