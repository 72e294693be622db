"""Measuring and clipping in one pass, against torch's clipping alone and against measuring and then clipping."""

from __future__ import annotations

from functools import partial

import torch
from lightning.pytorch.utilities import grad_norm
from torch import Tensor, nn

from experiments.bench import shapes
from experiments.bench.rules import FromTheStart
from experiments.bench.shapes import Shapes
from experiments.bench.table import Row, Section
from experiments.bench.timing import ROUND, WARMUP, Call, interleave, ratio, seconds
from experiments.bench.weights import Nudging, Weights
from grad_callbacks import ClipNorm, Engine, Exploding, NonFinite, Prescription, Rule, Vanishing

ALONE = "`clip_grad_norm_`"
TWICE = "`grad_norm` + `clip_grad_norm_`"
ONE_RULE = "engine, one rule"
WHOLE = "whole engine step"
BY_HAND = "`_foreach_norm`, then `_foreach_mul_` if due"
PROMISES = {ALONE: 1.0, TWICE: 0.6}

METHOD = f"""Gradients only, no training. *Above*: the gradient's norm is twice the threshold, so everything has to
be multiplied; *below*: half of it, so nothing has, yet `clip_grad_norm_` multiplies by 1. *{ONE_RULE}* measures and
clips, with no rule but one that switches clipping on; *{WHOLE}* has the default rules too. Both keep the history
and, in one step out of {ROUND}, measure weights and their motion (the first {WARMUP} steps, where each does,
are left out). {BY_HAND} shows what is left of the cost when nothing is kept and
nothing judged. A round is {ROUND} calls of each variant in turns; gradients are restored before each, outside the
timed part."""


def run(quick: bool) -> Section:
    """Time all shapes, above and below the threshold."""
    cases: list[tuple[str, Shapes, int]] = [
        ("ResNet-50 shapes", shapes.resnet50(), 3),
        ("GPT-2 shapes", shapes.gpt2(), 2),
        ("small layers", shapes.many(), 4),
    ]
    if quick:
        cases = [("small layers", shapes.many(tensors=20), 2)]
    rows = []
    for name, case, rounds in cases:
        for side in ("above", "below"):
            rows += _compare(f"{name}, {shapes.label(case)}, {side}", case, side == "above", rounds, quick)
    return Section("Measuring and clipping in one pass", METHOD, rows)


def _compare(name: str, case: Shapes, above: bool, rounds: int, quick: bool) -> list[Row]:
    model = Weights(case)
    norm = float(nn.utils.get_total_norm(model.gradients))
    threshold = norm / 2 if above else 2 * norm
    one_rule = _Treated(model, threshold, [FromTheStart()])
    whole = _Treated(model, threshold, [Vanishing(), Exploding(), NonFinite(), FromTheStart()])
    variants: dict[str, Call] = {
        ALONE: partial(nn.utils.clip_grad_norm_, list(model.parameters()), threshold),
        TWICE: partial(_measure_and_clip, model, threshold),
        BY_HAND: partial(_by_hand, model.gradients, threshold),
        ONE_RULE: one_rule.step,
        WHOLE: whole.step,
    }
    for variant, call in variants.items():
        for _ in range(2):  # on a GPU an engine answers one step later
            model.restore()
            call()
        _check(variant, model.gradients, min(norm, threshold))
    warmup, steps = (1, 2) if quick else (WARMUP, ROUND)
    times = interleave(variants, seconds, rounds, steps, warmup, prepare=model.restore)
    one_rule.close()
    whole.close()
    return [
        Row(name, what, other, ratio(times[what], times[other]), None if what == BY_HAND else promise)
        for other, promise in PROMISES.items()
        for what in (BY_HAND, ONE_RULE, WHOLE)
    ]


class _Treated:
    """An engine that clips at a threshold in every step."""

    def __init__(self, model: Weights, threshold: float, rules: list[Rule]) -> None:
        self._optimizer = Nudging(model)
        prescription = Prescription({"exploding": [ClipNorm(threshold)]})
        self._engine = Engine(model, self._optimizer, rules=rules, prescription=prescription)
        self.close = self._engine.close

    def step(self) -> None:
        self._engine.before_step()
        self._optimizer.step()


def _measure_and_clip(model: nn.Module, threshold: float) -> None:
    grad_norm(model, norm_type=2)
    nn.utils.clip_grad_norm_(model.parameters(), threshold)


@torch.no_grad()
def _by_hand(gradients: list[Tensor], threshold: float) -> None:
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
    if norm > threshold:
        torch._foreach_mul_(gradients, threshold / norm)


def _check(variant: str, gradients: list[Tensor], expected: float) -> None:
    norm = float(nn.utils.get_total_norm(gradients))
    if abs(norm - expected) > 1e-3 * expected:
        raise RuntimeError(f"{variant} left the gradients at norm {norm:.6g} instead of {expected:.6g}")
