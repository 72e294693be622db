"""What the README shows, works when pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import grad_callbacks

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


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


def test_there_are_snippets_and_every_file_named_is_there() -> None:
    assert len(SNIPPETS) >= 2
    for path in re.findall(r"`((?:grad_callbacks|conf|experiments|tests|docs)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).exists(), picture


def test_every_public_name_is_documented() -> None:
    for name in grad_callbacks.__all__:
        if name != "__version__":
            assert getattr(grad_callbacks, name).__doc__, name
