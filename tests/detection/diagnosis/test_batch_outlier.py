from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from grad_callbacks.detection.diagnosis.batch_outlier import BatchEvidence
from grad_callbacks.measurement.batch import tensors_in

LOSSES = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0]


@dataclass
class Record:
    x: torch.Tensor
    label: str = "a"


class Graph:
    def __init__(self) -> None:
        self.x, self.edges = torch.zeros(2), torch.zeros(2, dtype=torch.long)


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (torch.zeros(2), 1),
        ([torch.zeros(2), (torch.zeros(2), "name", None)], 2),
        ({"x": torch.zeros(2), "meta": {"y": torch.zeros(2)}}, 2),
        (Record(torch.zeros(2)), 1),
        (Pair(torch.zeros(2), torch.zeros(2)), 2),
        (Graph(), 2),
        ("text", 0),
        (None, 0),
    ],
)
def test_tensors_are_found_wherever_they_are(batch: Any, count: int) -> None:
    assert len(list(tensors_in(batch))) == count


@pytest.mark.parametrize(
    ("loss", "stands_out"), [(1.0, False), (1.5, False), (8.0, True), (math.inf, True), (math.nan, False), (0.0, False)]
)
def test_a_loss_among_its_neighbours(loss: float, stands_out: bool) -> None:
    assert BatchEvidence.of(None, None, loss, LOSSES).stands_out is stands_out


def test_noisy_losses_hide_what_quiet_ones_show() -> None:
    noisy = [0.1, 3.0, 0.5, 8.0, 0.05, 1.0]
    assert not BatchEvidence.of(None, None, 8.0, noisy).stands_out


@pytest.mark.parametrize("losses", [[], [1.0], [math.nan] * 5, [0.0] * 5])
def test_without_neighbours_nothing_is_said(losses: list[float]) -> None:
    found = BatchEvidence.of(None, None, 5.0, losses)
    assert not found.stands_out
    assert found.evidence() == {}


def test_a_scale_is_compared_tensor_by_tensor() -> None:
    usual = [torch.randn(16, 4), torch.arange(16)]
    assert not BatchEvidence.of([torch.randn(16, 4), torch.arange(16)], usual, 1.0, LOSSES).is_out_of_range
    large = BatchEvidence.of([30 * torch.randn(16, 4), torch.arange(16)], usual, 1.0, LOSSES)
    assert large.is_out_of_range
    assert large.evidence()["batch_scale_ratio"] == pytest.approx(30, rel=0.3)
    coded = torch.randn(64, 4)
    coded[0] = -9999.0
    assert BatchEvidence.of([coded], [torch.randn(64, 4)], 1.0, LOSSES).is_out_of_range
    assert not BatchEvidence.of([torch.randn(16, 5)], usual, 1.0, LOSSES).is_out_of_range


def test_bad_entries_are_counted() -> None:
    batch = {"x": torch.tensor([1.0, math.nan, math.inf]), "y": torch.tensor([1, 2])}
    assert BatchEvidence.of(batch, None, 1.0, LOSSES).nonfinite == 2
