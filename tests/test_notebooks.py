"""The notebooks of the documentation run, and show what is stored in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 200_000  # bytes of a notebook with its outputs
# What stays under every rounding: verdicts and outcomes, not numbers.
SAID = {"first_guard": ["vanishing", "healthy"], "seen_and_repaired": ["unrepaired", "repaired", "healthy"]}


def printed(notebook: Any) -> str:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(text if isinstance(text, str) else "".join(text) for text in texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_small_complete_and_of_no_machine(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert path.stat().st_size < LARGEST
    assert all(cell["outputs"] or cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert not re.search(r"(?<![\w:/])/(?:home|root|tmp|usr|work)/", path.read_text()), "a path"
    assert all(word in printed(notebook) for word in SAID[path.stem])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_ends_as_stored(path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from experiments.notebooks import executed

    said = printed(executed(path))
    assert all(word in said for word in SAID[path.stem])
    assert "Traceback" not in said
