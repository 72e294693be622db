"""Runs the notebooks of the documentation and stores what they show: ``python -m experiments.notebooks``."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
SECONDS = 300  # of one cell
_STORE = re.compile(r"sqlite:///\S*?mlflow\.db")


def main() -> int:
    """Run all notebooks and write them, with their outputs."""
    import nbformat

    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


def executed(path: Path) -> Any:
    """Run a notebook in an empty folder and return it with its outputs, which name no place of this machine.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    searched = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": searched, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=_in(folder))
        client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = _STORE.sub("sqlite:///mlflow.db", output["text"])
    return notebook


def _in(folder: str) -> dict[str, Any]:
    return {"metadata": {"path": folder}}


if __name__ == "__main__":
    sys.exit(main())
