"""A corpus of two short scenarios."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CONF = Path(__file__).resolve().parents[2] / "conf"

GOOD = """# @package _global_
# Two ReLU layers.
defaults:
  - override /trainer: steps

expects: {kinds: [], causes: [], reference: corpus/good, onset: null}
model: {depth: 2, width: 16}
optimizer: {lr: 0.1}
trainer: {max_steps: 60}
"""
BAD = """# @package _global_
# Ten sigmoid layers.
defaults:
  - override /trainer: steps
  - override /activation: sigmoid

expects: {kinds: [vanishing], causes: [saturated activations], reference: corpus/good, onset: 0}
model: {depth: 10, width: 16}
trainer: {max_steps: 60}
"""


@pytest.fixture
def tiny_corpus(tmp_path: Path) -> Path:
    """A folder of configs with the scenarios ``good`` and ``bad`` only."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf, ignore=shutil.ignore_patterns("corpus"))
    corpus = conf / "experiment/corpus"
    corpus.mkdir()
    (corpus / "good.yaml").write_text(GOOD)
    (corpus / "bad.yaml").write_text(BAD)
    return conf
