"""A journal that was written without a server, from which most faults are replayed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from experiments.reliability.saying import listening
from experiments.reliability.truth import ANY, Entry, metrics, single

NO_SERVER = "http://127.0.0.1:9"  # an address at which no server listens
STEPS = 40
EXPERIMENT, NAME = "reliability", "tried"


@dataclass(frozen=True)
class Prepared:
    """A folder with one journal, and what was logged into it.

    Attributes:
        folder: Of the journals.
        logged: One entry per line after the header, in order.
        header: What the header is there for.
        headers: How many lines at the start are headers.
    """

    folder: Path
    logged: list[Entry]
    header: Entry
    headers: int

    @property
    def journal(self) -> Path:
        """The journal's file."""
        [file] = self.folder.glob("*.jsonl")
        return file

    def copy_to(self, folder: Path) -> Prepared:
        """Copy the folder."""
        shutil.copytree(self.folder, folder)
        return Prepared(folder, self.logged, self.header, self.headers)

    def lines(self) -> list[bytes]:
        """The journal's lines."""
        return _lines(self.folder)


def prepare(folder: Path, uri: str = NO_SERVER) -> Prepared:
    """Log parameters, metrics, tags and artifacts with a real logger."""
    from grad_callbacks.tracking import JournaledMLFlowLogger

    with listening():
        logger = JournaledMLFlowLogger(
            EXPERIMENT, NAME, tracking_uri=uri, journal_dir=folder, finalize_timeout=0.1, keep_journal=True
        )
        assert logger.run_id
        first = [_own(line) for line in _lines(folder)]
        logged = [entry for entry in first if entry is not None]
        logger.log_hyperparams({"lr": 0.1, "net": {"depth": 3}})
        logged.append(frozenset([("param", "lr", "0.1"), ("param", "net/depth", "3")]))
        for step in range(STEPS):
            values = {"loss": step + 0.5, "acc": -step - 0.25}
            logger.log_metrics(values, step)
            logged.append(metrics(values, step))
            if step % 20 == 0:
                logger.experiment.log_text(str(logger.run_id), f"text {step}", f"texts/{step}.txt")
                logged.append(single("artifact", f"texts/{step}.txt", f"text {step}"))
        logger.experiment.set_tag(str(logger.run_id), "colour", "red")
        logged.append(single("tag", "colour", "red"))
        count = len(_lines(folder))
        logger.finalize("success")
        logger.close()
    if uri == NO_SERVER:
        logged += [entry for line in _lines(folder)[count:] if (entry := _own(line)) is not None]
    else:  # what the server has may be cut from the journal
        logged.append(single("status", "FINISHED"))
    header = frozenset([("experiment", EXPERIMENT), ("name", NAME)])
    made = Prepared(folder, logged, header, first.index(logged[0]))
    lines, expected = len(made.lines()), len(logged) + made.headers
    if uri == NO_SERVER and lines != expected:
        raise RuntimeError(f"the journal has {lines} lines, and {expected} were expected: has its format changed?")
    return made


def _lines(folder: Path) -> list[bytes]:
    [file] = folder.glob("*.jsonl")
    return file.read_bytes().splitlines(keepends=True)


def _own(line: bytes) -> Entry | None:
    """Return what the logger itself logs at the start and the end; None for a header."""
    entry = json.loads(line)
    if "file" in entry:
        return single("artifact", f"{entry['to']}/{Path(entry['file']).name}", ANY)
    if "status" in entry:
        return single("status", entry["status"])
    return frozenset(("tag", name, value) for name, value in entry["g"].items()) if "g" in entry else None
