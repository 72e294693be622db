"""The scores of attention, and the entropy of its softmax."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.utils._python_dispatch import _get_current_dispatch_mode

from grad_callbacks import Batch, Engine, Reading
from tests.support.helpers import SGD, mlp

WIDTH, HEADS, LENGTH = 8, 2, 12
Mixing = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def fused(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=~hidden)


def fused_causal(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def fused_with_added_mask(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    added = torch.zeros(hidden.shape).masked_fill(hidden, -1e9)
    return scaled_dot_product_attention(query, key, value, attn_mask=added)


def by_hand(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return dropout(scores.masked_fill(hidden, -1e9).softmax(-1), 0.1) @ value


class Mixer(nn.Module):
    """Causal attention, and a head; ``sharp`` multiplies the scores."""

    def __init__(self, mixing: Mixing, sharp: float = 1.0) -> None:
        super().__init__()
        self.embed, self.mixing, self.head = nn.Linear(3, 3 * WIDTH), mixing, nn.Linear(WIDTH, 4)
        self.sharp = sharp
        self.hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.embed(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return parts[0] * self.sharp, parts[1], parts[2]

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixing(*self.parts(x), self.hidden).transpose(1, 2).flatten(2)
        return self.head(mixed).softmax(-1)  # type: ignore[no-any-return]


class Mixed(nn.Module):
    """What calls the mixer, as a LightningModule would."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer


def readings(model: Mixed, x: Tensor, steps: int = 1) -> list[Reading]:
    engine, seen = Engine(model, SGD(model.parameters(), lr=0.01)), []
    for _ in range(steps):
        loss = model.mixer(x).square().mean()
        engine.optimizer.zero_grad()
        loss.backward()
        result = engine.before_step(loss=loss)
        engine.optimizer.step()
        assert result is not None
        seen.append(result.reading)
    engine.close()
    return seen


def expected(mixer: Mixer, x: Tensor) -> tuple[float, float]:
    """Largest score, and the mean share of entropy over all positions that may choose among four."""
    query, key, _ = mixer.parts(x)
    scores = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).double()
    largest = scores.masked_fill(mixer.hidden, 0.0).abs().max().detach()
    weights = scores.masked_fill(mixer.hidden, -torch.inf).softmax(-1)
    entropy = torch.special.entr(weights).sum(-1)[..., 3:]
    return float(largest), float((entropy / torch.arange(4, LENGTH + 1).log()).mean().detach())


@pytest.mark.parametrize("mixing", [fused, fused_causal, fused_with_added_mask, by_hand])
@pytest.mark.parametrize("sharp", [0.1, 3.0, 100.0])
def test_it_agrees_with_the_formula(mixing: Mixing, sharp: float) -> None:
    torch.manual_seed(0)
    mixer, x = Mixer(mixing, sharp), torch.randn(3, LENGTH, 3)
    score, entropy = expected(mixer, x)
    [seen] = readings(Mixed(mixer), x)
    assert seen.attention_score == pytest.approx(score, rel=1e-5)
    assert seen.attention_entropy == pytest.approx(entropy, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("needs_weights", [False, True])
def test_attention_of_torch_is_seen(needs_weights: bool) -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=needs_weights)[0]  # type: ignore[no-any-return]

    model, x = Mixed(Attending()), torch.randn(2, LENGTH, WIDTH)
    with torch.no_grad():
        model.mixer.attention.in_proj_weight *= 30.0
    [seen] = readings(model, x)
    assert seen.attention_score > 50.0
    assert seen.attention_entropy < 0.2


def test_of_a_large_batch_some_positions_tell_enough() -> None:
    torch.manual_seed(0)
    mixer = Mixer(fused_causal, 3.0)
    x = torch.randn(64, LENGTH, 3)
    [seen] = readings(Mixed(mixer), x)
    assert seen.attention_entropy == pytest.approx(expected(mixer, x)[1], rel=0.1)


def test_a_softmax_that_weighs_no_values_is_none() -> None:
    seen = readings(Mixed(nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1))), torch.randn(3, LENGTH, 3), steps=2)
    assert all(math.isnan(one.attention_entropy) for one in seen)


def test_a_model_without_attention_is_looked_at_once() -> None:
    model = Mixed(mlp(3, 8, 4))
    engine = Engine(model, SGD(model.parameters(), lr=0.01))
    hooks = [len(model.mixer._forward_pre_hooks)]
    for _ in range(60):
        loss = model.mixer(torch.randn(5, 3)).square().mean()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()
        hooks.append(len(model.mixer._forward_pre_hooks))
    assert hooks[0] == 1
    assert set(hooks[1:]) == {0}
    engine.close()


def test_it_is_measured_every_25_readings() -> None:
    seen = readings(Mixed(Mixer(fused)), torch.randn(3, LENGTH, 3), steps=60)
    assert [place for place, one in enumerate(seen) if not math.isnan(one.attention_score)] == [0, 25, 50]


def test_no_bit_changes() -> None:
    torch.manual_seed(0)
    bare, x = Mixed(Mixer(by_hand)), torch.randn(3, LENGTH, 3)
    watched = copy.deepcopy(bare)
    torch.manual_seed(1)
    readings(watched, x, steps=30)
    torch.manual_seed(1)
    optimizer = SGD(bare.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        bare.mixer(x).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), watched.parameters(), strict=True))


def test_an_error_in_the_forward_pass_leaves_nothing_behind() -> None:
    model = Mixed(Mixer(fused))
    engine = Engine(model, SGD(model.parameters(), lr=0.01))
    with pytest.raises(RuntimeError, match="shapes"):
        model.mixer(torch.randn(3, LENGTH, 5))
    assert _get_current_dispatch_mode() is None
    engine.close()


def test_it_goes_on_where_it_was_after_a_resumption() -> None:
    model, x = Mixed(Mixer(fused)), torch.randn(3, LENGTH, 3)

    def step(engine: Engine) -> float:
        loss = model.mixer(x).square().mean()
        loss.backward()
        result = engine.before_step(loss=loss)
        engine.optimizer.step()
        assert result is not None
        return result.reading.attention_score

    first = Engine(model, SGD(model.parameters(), lr=0.01))
    [step(first) for _ in range(20)]
    state = first.state_dict()
    first.close()
    second = Engine(model, SGD(model.parameters(), lr=0.01))
    second.load_state_dict(state)
    seen = [step(second) for _ in range(10)]
    second.close()
    assert [place for place, score in enumerate(seen) if not math.isnan(score)] == [5]


class InABlock(nn.Module):
    """Attention in a module of its own, and a head beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = Mixer(fused), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x))  # type: ignore[no-any-return]


def test_of_several_optimizers_the_one_that_trains_its_matrices_sees_it() -> None:
    block, x = InABlock(), torch.randn(3, LENGTH, 3)
    model = Mixed(block)
    of_attention = Engine(model, SGD(block.attention.parameters(), lr=0.01))
    of_head = Engine(model, SGD(block.head.parameters(), lr=0.01))
    loss = block(x).square().mean()
    loss.backward()
    scores = []
    for engine in (of_attention, of_head):
        result = engine.before_step(loss=loss)
        assert result is not None
        scores.append(result.reading.attention_score)
        engine.close()
    assert scores[0] > 0
    assert math.isnan(scores[1])


@pytest.mark.slow
def test_a_compiled_model_is_measured_where_its_batch_is_run_again() -> None:
    torch.manual_seed(0)
    mixer, x = Mixer(fused, 3.0), torch.randn(3, LENGTH, 3)
    model = torch.compile(mixer)
    engine = Engine(model, SGD(model.parameters(), lr=0.0))
    seen = []
    for _ in range(3):
        loss = model(x).square().mean()
        engine.optimizer.zero_grad()
        loss.backward()
        result = engine.before_step(loss=loss, batch=Batch(x, 0, lambda: model(x).square().mean()))
        engine.optimizer.step()
        assert result is not None
        seen.append(result.reading.attention_score)
    engine.close()
    assert seen[0] == pytest.approx(expected(mixer, x)[0], rel=1e-5)
    assert math.isnan(seen[1])
