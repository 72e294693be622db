"""The examples run as scripts, and print what happened."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def output_of(name: str) -> str:
    """What an example prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(ROOT / "examples" / name)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_needs_public_names_only(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 100
    assert re.findall(r"^(?:from|import) (grad_callbacks\S*)", text, re.MULTILINE) == ["grad_callbacks"]


def test_a_rule_of_ones_own_finds_a_plateau_and_the_rate_is_lowered() -> None:
    lines = output_of("own_rule.py").splitlines()
    assert re.match(r"step \d+: plateau: the loss has stayed at 1\.\d+ for 100 readings; gradient norm \d", lines[0])
    assert re.search(r"^step \d+: ReduceLR against plateau: .*'outcome': 'helped'", "\n".join(lines), re.MULTILINE)


def test_a_remedy_of_ones_own_answers_an_explosion_until_it_is_withdrawn() -> None:
    printed = output_of("own_remedy.py")
    assert re.search(r"^step 100: exploding: gradient norm", printed, re.MULTILINE)
    [made] = re.findall(r"^step 100: WeightDecay against exploding: (.*)$", printed, re.MULTILINE)
    assert "'strength': 0.1" in made
    assert "'outcome': 'helped'" in made
    assert "'withdrawn_at'" in made
    found = re.search(r"norm of the weights: (\S+) without the remedy, (\S+) with it", printed)
    assert found is not None
    without, treated = map(float, found.groups())
    assert treated < 0.5 * without
