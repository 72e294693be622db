"""What the README shows, works when pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import grad_callbacks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
SHOWN = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("detection", "mlflow"))]
SNIPPETS = [snippet for page in SHOWN for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
MOST_LINES = 200


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_runs(snippet: str, store: str) -> None:
    from lightning.pytorch.demos.boring_classes import BoringModel

    own = {"model": BoringModel(), "store": store}
    exec(compile(snippet, "README.md", "exec"), own)
    trainer = own.get("trainer")
    if trainer is not None and trainer.global_step == 0:
        trainer.fit_loop.max_epochs = 1
        trainer.fit(BoringModel())
        assert trainer.global_step == 64


def test_the_readme_is_short_and_has_snippets() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES
    assert len(SNIPPETS) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`((?:grad_callbacks|conf|experiments|tests|docs)/[\w/.]*)`", text):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_heading_that_is_linked_is_there(page: Path) -> None:
    for link, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)]+)\)", page.read_text()):
        text = ((page.parent / link) if link else page).read_text()
        known = {
            re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-")
            for line in re.findall(r"(?m)^#+ (.*)", text)
        }
        assert heading in known, f"{link}#{heading}"


def test_every_public_name_is_documented() -> None:
    for name in grad_callbacks.__all__:
        if name != "__version__":
            assert getattr(grad_callbacks, name).__doc__, name
