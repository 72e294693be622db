"""What README and documentation show, works when pasted."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

import grad_callbacks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
MOST_LINES = 200
SLOW = ("recipes", "notebooks", "five_minutes", "libraries", "adapters")  # these train
SCRIPT = "# train.py\n"  # how a block begins that runs as a program of its own
OPTIONAL = (
    "gluonts",
    "transformers",
    "accelerate",
    "neuralforecast",
    "darts",
    "pytorch_forecasting",
    "chemprop",
    "lightly",
    "peft",
)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def snippets() -> list[Any]:
    """Every Python block, as a parameter."""
    found = []
    for page in PAGES:
        for place, snippet in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            is_slow = any(name in named(page) for name in SLOW)
            found.append(
                pytest.param(snippet, id=f"{named(page)}-{place}", marks=[pytest.mark.slow] if is_slow else [])
            )
    return found


@pytest.mark.parametrize("snippet", snippets())
def test_every_snippet_runs(snippet: str, store: str, tmp_path: Path) -> None:
    from lightning.pytorch.demos.boring_classes import BoringModel

    for package in OPTIONAL:
        if re.search(rf"(?m)^\s*(?:from|import) {package}\b", snippet):
            pytest.importorskip(package)
    if snippet.startswith(SCRIPT):
        (tmp_path / "train.py").write_text(snippet)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(tmp_path / "train.py")]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return
    own = {"model": BoringModel(), "store": store, "__name__": "snippet"}
    exec(compile(snippet, "README.md", "exec"), own)
    trainer = own.get("trainer")
    if trainer is not None and hasattr(trainer, "fit_loop") and trainer.global_step == 0:
        trainer.fit_loop.max_epochs = 1
        trainer.fit(BoringModel())
        assert trainer.global_step == 64


def test_the_readme_is_short_and_has_snippets() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES
    assert len(snippets()) >= 20


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`((?:grad_callbacks|conf|experiments|tests|docs)/[\w/.]*)`", text):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_heading_that_is_linked_is_there(page: Path) -> None:
    for link, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)]+)\)", page.read_text()):
        text = ((page.parent / link) if link else page).read_text()
        known = {
            re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-")
            for line in re.findall(r"(?m)^#+ (.*)", text)
        }
        assert heading in known, f"{link}#{heading}"


def test_every_public_name_is_documented() -> None:
    listed = re.findall(r"(?m)^::: grad_callbacks\.(\w+)$", (ROOT / "docs" / "api.md").read_text())
    for name in grad_callbacks.__all__:
        if name not in ("__version__", "CAUSES"):
            assert getattr(grad_callbacks, name).__doc__, name
            assert name in listed, f"docs/api.md has no {name}"


def test_every_remedy_has_a_row_with_its_defaults() -> None:
    from grad_callbacks.treatment.remedies import REMEDIES

    rows = re.findall(r"(?m)^\| `(\w+)` \| [^|]* \| ([^|]*)\|", (ROOT / "docs" / "remedies.md").read_text())
    assert {name for name, _ in rows} == set(REMEDIES)
    for name, arguments in rows:
        for argument, default in re.findall(r"`(\w+)=([^`]+)`", arguments):
            assert inspect.signature(REMEDIES[name]).parameters[argument].default == literal_eval(default), name


def test_every_limit_that_can_be_changed_is_told_with_its_default() -> None:
    from grad_callbacks.detection.rules import RULES

    text = (ROOT / "docs" / "change_a_limit.md").read_text()
    rows = re.findall(r"(?m)^\|[^|]*\| `(\w+)\(([^`]*)\)`[^|]*\| ([^|]+) \|$", text)
    checked = set()
    for name, arguments, told in rows:
        owner = RULES.get(name, grad_callbacks.GradientGuard)
        names = re.findall(r"(\w+)=", arguments)
        for argument, default in zip(names, told.split(", "), strict=True):
            actual = inspect.signature(owner).parameters[argument].default
            checked.add((name, argument))
            if owner in RULES.values():
                assert actual == float(default), (name, argument)
    rules = {(name, argument) for name, rule in RULES.items() for argument in inspect.signature(rule).parameters}
    assert rules - checked == {("Exploding", "jump"), ("Vanishing", "motion"), ("Vanishing", "through_time")}
