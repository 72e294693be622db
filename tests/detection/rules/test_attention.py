"""Attention that collapses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import Alert, GradientGuard, GradientMonitor, SaturatedAttention
from tests.support.helpers import reading, trainer

WELL, COLLAPSED = (5.0, 0.9), (120.0, 0.02)


def judged(
    measured: Sequence[tuple[float, float]],
    losses: Sequence[float] | None = None,
    rule: SaturatedAttention | None = None,
) -> list[Alert]:
    """The alerts where each measurement of score and entropy comes 25 readings after the last."""
    rule, found = rule or SaturatedAttention(), []
    for place, (score, entropy) in enumerate(measured):
        for step in range(25 * place, 25 * place + 25):
            is_due = step % 25 == 0
            told = {"attention_score": score, "attention_entropy": entropy} if is_due else {}
            alert = rule.judge(reading([1.0] * 3, step, loss=1.0 if losses is None else losses[place], **told))
            found += [] if alert is None else [alert]
    return found


def test_the_third_measurement_tells_it_once_with_what_was_well() -> None:
    [alert] = judged([WELL, WELL, *[COLLAPSED] * 4])
    assert (alert.step, alert.kind, alert.severity, alert.cause) == (
        100,
        "exploding",
        "critical",
        "saturated attention",
    )
    assert alert.evidence.well_at == 25
    assert "as large as 120" in alert.message
    assert "2% of that of equal weights, where it was 90%" in alert.message


def test_one_that_has_recovered_may_come_again() -> None:
    course = [WELL, *[COLLAPSED] * 3, WELL, *[COLLAPSED] * 3]
    assert [alert.step for alert in judged(course)] == [75, 175]


@pytest.mark.parametrize(
    "measured",
    [
        [WELL, COLLAPSED, COLLAPSED, WELL, COLLAPSED, COLLAPSED, WELL],
        [WELL, (120.0, 0.3), (120.0, 0.3), (120.0, 0.3)],
        [WELL, (20.0, 0.02), (20.0, 0.02), (20.0, 0.02)],
        [COLLAPSED] * 5,
        [WELL, (math.inf, 0.02), (math.inf, math.nan)],
    ],
    ids=["single ones", "large scores", "sharp", "from the start", "not finite"],
)
def test_others_are_silent(measured: list[tuple[float, float]]) -> None:
    assert judged(measured) == []


def test_where_the_loss_is_nearly_gone_single_positions_are_what_there_was_to_learn() -> None:
    assert judged([WELL, *[COLLAPSED] * 4], [1.0, *[0.05] * 4]) == []


def test_it_goes_on_from_its_state() -> None:
    rule = SaturatedAttention()
    assert judged([WELL, COLLAPSED, COLLAPSED], rule=rule) == []
    assert rule.near
    other = SaturatedAttention()
    other.load_state_dict(rule.state_dict())
    assert len(judged([COLLAPSED], rule=other)) == 1
    assert other.active


@pytest.mark.parametrize(("arguments", "message"), [({"entropy": 2}, "entropy"), ({"score": 0}, "score")])
def test_a_wrong_argument_is_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SaturatedAttention(**arguments)


class Mixer(nn.Module):
    """One layer of causal attention over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(12, 32), nn.Parameter(0.02 * torch.randn(24, 32))
        self.parts = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 96, bias=False))
        self.out, self.head = nn.Linear(32, 32, bias=False), nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 12))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places
        query, key, value = self.parts(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        return self.head(x + self.out(mixed))  # type: ignore[no-any-return]


class Language(LightningModule):
    """Learns to tell the next token."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model, self.lr = Mixer(), lr
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        [tokens] = batch
        loss = cross_entropy(self.model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.lr)

    def final_loss(self, *callbacks: GradientMonitor) -> float:
        trainer(*callbacks, max_epochs=20).fit(self, DataLoader(TensorDataset(_sequences()), 64))
        return sum(self.losses[-8:]) / 8


def _sequences() -> Tensor:
    """Each token is drawn by a table from the two before it."""
    generator = torch.Generator().manual_seed(0)
    table = torch.softmax(2 * torch.randn(12, 12, 12, generator=generator), -1)
    tokens = torch.randint(12, (512, 25), generator=generator)
    for place in range(2, tokens.shape[1]):
        chances = table[tokens[:, place - 2], tokens[:, place - 1]]
        tokens[:, place] = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return tokens


@pytest.mark.slow
def test_a_rate_ten_times_too_high_is_seen_and_the_run_begins_again_below_it() -> None:
    good, bare = Language(lr=0.03).final_loss(), Language(lr=0.3).final_loss()
    guard, guarded = GradientGuard(rules=["SaturatedAttention"]), Language(lr=0.3)
    final = guarded.final_loss(guard)
    assert guard.alerts[0].cause == "saturated attention"
    assert guard.alerts[0].step < 30
    assert "QK-norm" in guard.alerts[0].advice
    assert [made.remedy for made in guard.interventions] == ["Rollback"]
    assert guard.interventions[0].detail["to_step"] == 0
    assert final < good + 0.1 < bare
    assert Language(lr=0.3).final_loss(GradientGuard()) < good + 0.1, "the first steps alone show it to other rules"


def test_a_good_rate_is_left_alone() -> None:
    guard, guarded = GradientGuard(), Language(lr=0.03)
    assert guarded.final_loss(guard) == Language(lr=0.03).final_loss()
    assert guard.alerts == []
