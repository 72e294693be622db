"""Results that are kept between calls: one JSON file per group of rows."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from experiments.reliability.cases import Case

PACKAGE = Path(__file__).resolve().parents[2] / "grad_callbacks"
SAVE_EVERY = 5.0  # seconds
NO_TRIALS = {
    "__main__.py",
    "long_run.py",
    "report.py",
    "results.py",
    "trials.py",
}  # files that do not decide what comes of a case


class Results:
    """The results of one group; those of other code are forgotten.

    Args:
        folder: Where the file is.
        group: The group's name.
        is_fresh: Forget what is there.
    """

    def __init__(self, folder: Path, group: str, is_fresh: bool = False) -> None:
        self._path = folder / f"{group}.json"
        self._code = fingerprint()
        self._rows: dict[str, dict[str, Case]] = {}
        self._saved = time.monotonic()
        if self._path.exists() and not is_fresh:
            kept = json.loads(self._path.read_text())
            if kept["code"] == self._code:
                self._rows = {
                    row: {case["name"]: Case(**case) for case in cases} for row, cases in kept["rows"].items()
                }

    def of(self, row: str) -> dict[str, Case]:
        """Return the row's cases by name."""
        return self._rows.setdefault(row, {})

    def add(self, row: str, case: Case) -> None:
        """Keep a case; the file is written every few seconds."""
        self.of(row)[case.name] = case
        if time.monotonic() - self._saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = {row: [case.to_dict() for case in cases.values()] for row, cases in self._rows.items()}
        unfinished = self._path.with_suffix(".json~")
        unfinished.write_text(json.dumps({"code": self._code, "rows": rows}, indent=1))
        unfinished.replace(self._path)
        self._saved = time.monotonic()


def fingerprint() -> str:
    """Return a hash of the package's tracking and of the trials: results of other code say nothing."""
    digest = hashlib.sha256()
    for folder in (PACKAGE / "tracking", PACKAGE / "_utils", Path(__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            if file.name not in NO_TRIALS:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
