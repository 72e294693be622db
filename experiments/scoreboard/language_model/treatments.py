"""The treatments: nothing, the usual clipping, ours, both, and what others have published."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.scoreboard.repair.published import PUBLISHED
from experiments.scoreboard.repair.treatments import GUARD, Treatment

NONE, CLIP, OURS, BOTH = "none", "clip", "guard", "guard_and_clip"
CLIPPED = {"clip": 1.0}  # the norm that most language models are clipped to

TREATMENTS: dict[str, Treatment] = {
    one.name: one
    for one in (
        Treatment(NONE, "Nothing is done, and nobody watches."),
        Treatment(CLIP, "Lightning's `gradient_clip_val=1.0`.", changes=CLIPPED),
        Treatment(OURS, "`GradientGuard()` with its defaults.", GUARD),
        Treatment(BOTH, "`GradientGuard()` with its defaults, beside `gradient_clip_val=1.0`.", GUARD, CLIPPED),
        Treatment("zclip", "ZClip (Kumar et al. 2025, arXiv 2504.02507).", published="zclip"),
        Treatment("autoclip", "AutoClip (Seetharaman et al. 2020, arXiv 2007.14469).", published="autoclip"),
        Treatment("adagc", "AdaGC (Wang et al. 2025, arXiv 2502.11034).", published="adagc"),
        Treatment("arc_training", "arc-training's Lightning callback, as installed.", published="arc_training"),
    )
    if one.published in ("", *PUBLISHED)
}


def chosen(names: Sequence[str]) -> list[Treatment]:
    """Return treatments by name, all if none is named; ``none`` always, since the others are compared with it.

    Raises:
        ValueError: If there is no such treatment.
    """
    unknown = [name for name in names if name not in TREATMENTS]
    if unknown:
        raise ValueError(f"there is no treatment {unknown[0]!r}; there are {', '.join(TREATMENTS)}")
    return [one for name, one in TREATMENTS.items() if not names or name in {NONE, *names}]
