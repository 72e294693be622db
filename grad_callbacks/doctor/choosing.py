"""Which cures are tried, and in which order: what the diagnosis says first comes first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures import (
    LARGER,
    SMALLER,
    Activation,
    Clip,
    Cure,
    Epsilon,
    FullPrecision,
    Guard,
    Initialisation,
    LearningRate,
    Logits,
    Normalisation,
    Residual,
    StandardInputs,
    WarmUp,
    refused,
)

TINY = 1e-6  # norms of a gradient below which eps is what an adaptive optimizer divides by
MARGIN = 3.0  # the rate to take is so many times below the one that lowers the loss, as in the advice

# By cause; what is not named comes behind, in the order of `_all`.
FIRST: dict[str, tuple[str, ...]] = {
    "saturated activations": ("ReLU", "lsuv", "GELU", "batch", "residual"),
    "dead units": ("LeakyReLU", "lsuv", "tenth", "batch", "inputs"),
    "saturated output": ("logits", "tenth", "inputs", "lsuv", "hundredth", "guard"),
    "weights too small": ("lsuv", "batch", "he", "ReLU", "residual"),
    "depth without normalisation or skips": ("lsuv", "batch", "residual", "ReLU"),
    "recurrence over many steps": ("lsuv", "clip", "guard", "tenth", "hundredth"),
    "weights too large": ("lsuv", "batch", "he", "tenth", "clip"),
    "unscaled residual branches": ("lsuv", "batch", "hundredth", "tenth", "clip"),
    "learning rate too high": ("tenth", "helps", "hundredth", "guard", "thousandth", "third", "clip", "warm-up"),
    "missing warm-up": ("warm-up", "tenth", "clip"),
    "bad batch": ("clip", "guard with skipping", "guard", "tenth"),
    "inputs too large": ("inputs", "hundredth", "clip", "batch"),
    "targets or loss too large": ("hundredth", "guard", "clip", "thousandth", "inputs"),
    "undefined operation": ("guard with masks", "guard", "clip"),
    "16-bit overflow": ("precision", "lsuv", "guard", "batch", "tenth"),
    "non-finite weights": ("tenth", "guard", "clip", "lsuv"),
}
# In which order two cures are applied: hooks after the modules that they are put on, weights after that.
SLOTS = (
    "activation",
    "norm",
    "residual",
    "inputs",
    "output",
    "weights",
    "rate",
    "warm-up",
    "clip",
    "eps",
    "precision",
    "guard",
)
COMPILED = (
    "activations, normalisations and residual connections are not tried: the model is compiled, and its modules "
    "cannot be seen at work; leave `torch.compile` out to let them be tried"
)
NO_PROGRESS = ("logits", "inputs", "lsuv", "ReLU", "tenth", "batch", "times ten", "hundredth")


def cures_for(ill: Attempt) -> tuple[list[Cure], list[str]]:
    """Return the cures that apply, in order, and why others must not be tried.

    Args:
        ill: What came of the training as it is.
    """
    known = _all(ill)
    first = FIRST.get(ill.cause, NO_PROGRESS if not ill.kind else ())
    names = [*(name for name in first if name in known), *(name for name in known if name not in first)]
    if ill.kind:
        names = [name for name in names if name != "times ten"]
    applying = [known[name] for name in names if known[name].applies(ill)]
    why = list(dict.fromkeys(told for cure in applying if (told := refused(cure, ill.inspection))))
    if ill.inspection.compiled:
        why.append(COMPILED)
    return [cure for cure in applying if not refused(cure, ill.inspection)], why


def pairs_of(tried: Sequence[tuple[Cure, Attempt]], ill: Attempt) -> Iterator[tuple[Cure, ...]]:
    """Return pairs of cures of different slots.

    First, what cures the other fault that a single cure has laid bare; then the best single cures together.

    Args:
        tried: Single cures and what came of them, the best first.
        ill: What came of the training as it is.
    """
    known, seen = _all(ill), set[frozenset[str]]()
    for first, second in [*_followed_up(tried, ill, known), *_best(tried)]:
        names = frozenset((first.name, second.name))
        if first.slot != second.slot and names not in seen:
            seen.add(names)
            yield tuple(sorted((first, second), key=lambda cure: SLOTS.index(cure.slot)))


def _followed_up(
    tried: Sequence[tuple[Cure, Attempt]], ill: Attempt, known: dict[str, Cure]
) -> Iterator[tuple[Cure, Cure]]:
    for cure, attempt in tried:
        if cure.slot == "guard" or attempt.cause == ill.cause:
            continue
        for name in FIRST.get(attempt.cause, ()):
            second = known.get(name)
            if (
                second is not None
                and second.slot != cure.slot
                and second.applies(ill)
                and not refused(second, ill.inspection)
            ):
                yield cure, second
                break


def _best(tried: Sequence[tuple[Cure, Attempt]]) -> Iterator[tuple[Cure, Cure]]:
    for one, other in sorted(combinations(range(len(tried)), 2), key=lambda pair: (sum(pair), pair)):
        yield tried[one][0], tried[other][0]


def _all(ill: Attempt) -> dict[str, Cure]:
    """Every cure by its name in the lists above, in the order for causes that say nothing of it."""
    share = ill.evidence.get("rate_that_helps", math.nan)
    known: dict[str, Cure] = {
        "logits": Logits(),
        "tenth": LearningRate(0.1),
        "lsuv": Initialisation("lsuv"),
        "inputs": StandardInputs(),
        "batch": Normalisation("batch"),
        "clip": Clip(ill.norm),
        "guard": Guard(),
        "ReLU": Activation("ReLU"),
        "hundredth": LearningRate(0.01),
        "warm-up": WarmUp(),
        "residual": Residual(),
        "precision": FullPrecision(),
        "third": LearningRate(1 / 3),
        "layer": Normalisation("layer"),
        "he": Initialisation("he"),
        "xavier": Initialisation("xavier"),
        "orthogonal": Initialisation("orthogonal"),
        "LeakyReLU": Activation("LeakyReLU"),
        "GELU": Activation("GELU"),
        "eps": Epsilon(SMALLER if ill.norm < TINY else LARGER),
        "thousandth": LearningRate(0.001),
        "times ten": LearningRate(10.0),
        "guard with masks": Guard("MaskUndefined", {"nonfinite": ["MaskUndefined", "SkipStep"]}),
        "guard with skipping": Guard("SkipStep", {"nonfinite": ["SkipStep"], "exploding": ["SkipStep"]}),
    }
    if 0 < share < 1:
        known["helps"] = LearningRate(float(f"{share / MARGIN:.2g}"))
    return known
