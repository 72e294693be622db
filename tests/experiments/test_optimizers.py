"""Optimizers of many packages: none ends a training through a callback, none is changed when healthy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.optimizers.catalogue import PACKAGES, catalogue
from experiments.optimizers.judging import judge
from experiments.optimizers.report import markdown


def test_an_ordinary_one_keeps_the_promise_and_has_a_row() -> None:
    verdict = judge(catalogue(["torch"])["torch.Adam"])
    assert verdict.kept
    assert set(verdict.rows) == {"none", "NaN batch", "loss x 1e6", "rate x 1000"}
    assert verdict.rows["NaN batch"][2] == ["SkipStep"]
    assert "| `torch.Adam` | yes |" in markdown({"torch.Adam": verdict})


def test_one_that_fails_alone_is_listed_with_its_reason() -> None:
    def refused(net: nn.Module) -> torch.optim.Optimizer:
        raise TypeError("needs a moon")

    verdict = judge(refused)
    assert verdict.untried == "TypeError: needs a moon"
    assert "- `moon`: TypeError: needs a moon" in markdown({"moon": verdict})


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_all_that_are_installed_keep_the_promise(package: str) -> None:
    made = catalogue([package])
    if not made:
        pytest.skip(f"{package} is not installed")
    wrong = {name: verdict for name, make in made.items() if not (verdict := judge(make)).kept}
    assert not wrong
