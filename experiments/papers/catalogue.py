"""The papers."""

from __future__ import annotations

from experiments.papers.base import Arm, Found, Paper
from experiments.papers.measures import Sharpness, Spikes

GOOD, LOST = 0.9, 0.5  # quality on the digits and on the order of symbols: learned, not learned
TOLERANCE = 0.03  # relative, between the factor per layer that is measured at width 512 and the theory's
EDGE = 10.0  # two over the learning rate of cohen2021
NEAR = 0.2  # relative distance of the sharpness from it
BETTER = 0.01  # in quality, of a language model
SMALLER = "digits of 8 x 8 pixels and a narrow net in place of the paper's; the direction is what can be compared"


def _mean_field() -> dict[str, Arm]:
    rows = (
        *(("sigmoid", 1 / 3, 0.0), ("sigmoid", 1.0, 0.0), ("tanh", 1 / 3, 0.0), ("tanh", 1.761, 0.05)),
        *(("tanh", 4.0, 0.0), ("relu", 1 / 3, 0.0), ("relu", 1.0, 0.0), ("relu", 2.0, 0.0), ("relu", 4.0, 0.0)),
        ("selu", 1.0, 0.0),
    )
    return {
        f"{name} {weights:.4g}, {biases:g}": Arm(
            f"{name}, σ_w² {weights:.4g}, σ_b² {biases:g}",
            (f"activation={name}", f"init.weights={weights}", f"init.biases={biases}"),
        )
        for name, weights, biases in rows
    }


def _agrees(found: Found) -> bool:
    return all(abs(many.middle("decay") / many.middle("theory") - 1) < TOLERANCE for many in found.values())


def _at_the_edge(found: Found) -> bool:
    near = all(abs(many.middle("sharpness") / EDGE - 1) < NEAR for many in found.values())
    return near and all(outcome.verdict == "healthy" for many in found.values() for outcome in many.outcomes)


CLIPPED = ("clip", "zclip", "autoclip", "agc")
CLIP = ("+trainer.gradient_clip_val=1.0", "+trainer.gradient_clip_algorithm=norm")
_NOTHING = Arm("nothing")

_FOUND = (
    Paper(
        config="he2015",
        source="He et al. 2015, arXiv 1502.01852, figure 3",
        claim="With 30 layers of ReLU, training stalls under Xavier's weights and converges under He's.",
        theirs="direction only: one line stays flat, the other falls",
        arms={
            "xavier": Arm("Xavier", ("init=xavier",)),
            "he": Arm("He", ("init=he",)),
            "default": Arm("torch's default", ("init=default",)),
        },
        direction=lambda f: max(f["xavier"].quality, f["default"].quality) < LOST < f["he"].quality,
        looked_for="He above .5, the others below",
        differs=f"convolutions on ImageNet there; {SMALLER}",
    ),
    Paper(
        config="glorot2010",
        source="Glorot & Bengio 2010, AISTATS",
        claim="Sigmoids are unsuited to deep nets with random weights; tanh with normalised weights is not.",
        theirs="direction only",
        arms={
            "sigmoid": Arm("sigmoid, Xavier", ("activation=sigmoid",)),
            "tanh": Arm("tanh, Xavier", ("activation=tanh",)),
        },
        direction=lambda f: f["sigmoid"].quality < LOST <= GOOD <= f["tanh"].quality,
        looked_for="sigmoid below .5, tanh at least .9",
        differs=f"up to five layers and larger images there, eight here; {SMALLER}",
    ),
    Paper(
        config="pascanu2013",
        source="Pascanu et al. 2013, arXiv 1211.5063, figure 7",
        claim="Clipping the gradient by its norm solves the temporal order problem where plain SGD does not.",
        theirs="direction only",
        arms={
            "none": _NOTHING,
            "clip": Arm("clipped at 1 from the start", CLIP),
            "guard_clip": Arm("clipped at 1 by the guard, once it sees it explode", ("guard=clip_norm",)),
            "guard": Arm("GradientGuard()", ("guard=full",)),
        },
        direction=lambda f: f["none"].quality < LOST and min(f["clip"].quality, f["guard_clip"].quality) >= GOOD,
        looked_for="nothing below .5, both clips at least .9",
        differs="lengths of 50 to 200 and many more steps there, 30 and 1600 here",
    ),
    Paper(
        config="mean_field",
        source="Schoenholz et al. 2017, arXiv 1611.01232",
        claim="The error's root mean square is multiplied by √χ₁ at each layer on its way back.",
        theirs="√χ₁ by quadrature, in brackets",
        arms=_mean_field(),
        direction=_agrees,
        looked_for=f"measured and theory within {TOLERANCE:.0%}",
        differs="the theory is for infinite width; 512 units and 30 layers here",
        shown="decay",
    ),
    Paper(
        config="fixup",
        source="Zhang et al. 2019, arXiv 1901.09321",
        claim="Residual nets without normalisation explode at the start; scaled or started at zero, they train.",
        theirs="direction only",
        arms={
            "unscaled": Arm("branches unscaled"),
            "scaled": Arm("branches times blocks^-1/2", ("model.branch_scale=null",)),
            "fixup": Arm("Fixup", ("init=fixup",)),
        },
        direction=lambda f: f["unscaled"].quality < LOST and min(f["scaled"].quality, f["fixup"].quality) >= GOOD,
        looked_for="unscaled below .5, the others at least .9",
        differs=f"convolutions of many more layers there, 30 blocks here, without Fixup's scalars; {SMALLER}",
    ),
    Paper(
        config="xiong2020",
        source="Xiong et al. 2020, arXiv 2002.04745",
        claim="A transformer with layer norms after the sums needs a warm-up; with layer norms before, it does not.",
        theirs="direction only",
        arms={
            "post": Arm("post-norm"),
            "post_warmup": Arm("post-norm, warm-up 100", ("schedule=warmup", "schedule.rise=100")),
            "pre": Arm("pre-norm", ("model.pre_norm=true",)),
        },
        direction=lambda f: min(f["post_warmup"].quality, f["pre"].quality) > f["post"].quality + BETTER,
        looked_for="both better than post-norm alone by .01 at least",
        differs="translation with six wide layers there; characters, six layers of 32 and 200 steps here",
    ),
    Paper(
        config="corrupt_batch",
        source="Kumar et al. 2025 (ZClip), arXiv 2504.02507; Seetharaman et al. 2020 (AutoClip), arXiv 2007.14469; "
        "Brock et al. 2021 (AGC), arXiv 2102.06171",
        claim="Clipping that adapts to the gradients' own history takes the force out of an outlier.",
        theirs="direction only",
        arms={
            "none": _NOTHING,
            "clip": Arm("clipped at 1", CLIP),
            "zclip": Arm("ZClip", published="zclip"),
            "autoclip": Arm("AutoClip", published="autoclip"),
            "agc": Arm("AGC", published="agc_from_start"),
            "guard": Arm("GradientGuard()", ("guard=full",)),
        },
        direction=lambda f: all(GOOD <= f[arm].quality > f["none"].quality for arm in CLIPPED),
        looked_for="each at least .9, and better than nothing",
        differs="language models, separation of sources and ImageNet there, one corrupt batch of digits here",
    ),
    Paper(
        config="corrupt_batch",
        source="Wang et al. 2025 (AdaGC), arXiv 2502.11034",
        claim="Clipping each tensor by its own history does so, too.",
        theirs="direction only",
        arms={"none": _NOTHING, "adagc": Arm("AdaGC", published="adagc")},
        direction=lambda f: GOOD <= f["adagc"].quality > f["none"].quality,
        looked_for="at least .9, and better than nothing",
        differs="pretraining of language models there, one corrupt batch of digits here",
    ),
    Paper(
        config="cohen2021",
        source="Cohen et al. 2021, arXiv 2103.00065",
        claim="Under full batches the sharpness rises to 2 / rate and stays there, while the loss falls in jolts.",
        theirs=f"2 / rate, here {EDGE:g}",
        arms={"monitor": Arm("monitored"), "guard": Arm("GradientGuard()", ("guard=full",))},
        direction=_at_the_edge,
        looked_for=f"sharpness within {NEAR:.0%} of 2 / rate, and no verdict but healthy: it is no fault",
        differs="CIFAR-10 there, 500 digits here",
        shown="sharpness",
        measure=Sharpness,
    ),
    Paper(
        config="adam_spikes",
        source="Bai et al. 2025, arXiv 2506.04805",
        claim="Adam's spikes come from its preconditioner, which lags behind once gradients are small.",
        theirs="direction only",
        arms={
            "plain": Arm("β₂ .95"),
            "eps": Arm("eps 1e-5", ("optimizer.eps=1e-5",)),
            "clip": Arm("clipped at 1", CLIP),
        },
        direction=lambda f: f["plain"].middle("spikes") > f["eps"].middle("spikes") == 0 < f["clip"].middle("spikes"),
        looked_for="spikes with β₂ .95 and when clipped, none with an eps that bounds the preconditioner",
        differs="their nets are larger, and they shift β₂; spikes are counted here: ten times the least of 20 steps",
        shown="spikes",
        measure=Spikes,
    ),
)
PAPERS = {f"{paper.config}{'_adagc' if 'adagc' in paper.arms else ''}": paper for paper in _FOUND}
