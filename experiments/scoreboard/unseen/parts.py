"""The parts of the default guard that can be left out, each as a treatment."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from experiments.scoreboard.repair.treatments import GUARD, RANDOM, Treatment, all_treatments
from grad_callbacks.treatment.prescription.presets import DEFAULT_PLAN, Plan

ALONE = ("reduce_lr", "clip_norm", "rollback", RANDOM)  # what the guard is measured against
HOME = "grad_callbacks.treatment"
BESIDE = {"Reinitialize": {"beside": True}}  # supplements Rollback
SUPPLEMENTS: Sequence[Any] = ("AdaptiveStep", BESIDE)


@dataclass(frozen=True)
class Part:
    """A part of the default guard.

    Attributes:
        name: Of the treatment that is the guard without it.
        what: Says what is left out.
        remedies: Those that it belongs to: a run in which none of them acts is the same without it. None for all.
        thresholds: What its numbers are set to so that it never acts, by module below ``grad_callbacks.treatment``.
        is_remedy: Its remedies are left out of the plan.
    """

    name: str
    what: str
    remedies: Collection[str] = ()
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_remedy: bool = False

    @property
    def treatment(self) -> Treatment:
        """The default guard without this part."""
        guard = {**GUARD, "prescription": plan_without(self.remedies)} if self.is_remedy else GUARD
        numbers = hashlib.sha256(repr(self.thresholds).encode()).hexdigest()[:6] if self.thresholds else ""
        name = "-".join(filter(None, [self.name, numbers]))  # other numbers are another file
        return Treatment(name, f"The default guard without: {self.what}.", guard)

    def may_change(self, applied: Collection[str]) -> bool:
        """True if a run in which the default guard has applied these remedies may be another without this part."""
        return bool(applied) if not self.remedies else any(name in applied for name in self.remedies)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Set its numbers for as long as the block runs."""
        with ExitStack() as stack:
            for path, values in self.thresholds.items():
                module = import_module(f"{HOME}.{path}")
                stack.enter_context(patch.object(module, "LIMITS", replace(module.LIMITS, **values)))
            yield


def plan_without(remedies: Collection[str]) -> Plan:
    """Return the default plan without some remedies, and without what has nothing left to supplement."""
    plan: dict[str, list[Any]] = {}
    for key, specs in DEFAULT_PLAN.items():
        kept = [spec for spec in specs if _name(spec) not in remedies]
        kept = kept if "Rollback" in kept else [spec for spec in kept if spec != BESIDE]
        plan[key] = kept if any(spec not in SUPPLEMENTS for spec in kept) else []
    return plan


def all_parts() -> Sequence[Part]:
    """Return each remedy of the default plan, then each part of a remedy."""
    names = dict.fromkeys(_name(spec) for specs in DEFAULT_PLAN.values() for spec in specs)
    return [*(Part(f"no_{name}", name, (name,), is_remedy=True) for name in names), *PARTS]


def rivals(conf: Path) -> Sequence[Treatment]:
    """Return single remedies that somebody might switch on by hand, and the lot.

    Args:
        conf: The folder of the configs.
    """
    found = all_treatments(conf)
    return [found[name] for name in ALONE]


def _name(spec: Any) -> str:
    return spec if isinstance(spec, str) else next(iter(spec))


_NEVER = 10**9  # readings
_TREATMENT, _ROLLBACK, _CLIP = "prescription.treatment", "remedies.rollback", "remedies.clip_norm"
_LSUV, _INIT = "remedies._support.lsuv", "remedies._support.initialisation"
_FITTED, _STEP = "remedies._support.post_init_steps", "remedies.adaptive_step"
_FIT = {
    f"{kind}_{name}": value for kind in ("plain_rnn", "gated_rnn") for name, value in (("first", 1.0), ("most", 1.0))
}
_STRIDES = {"sgd_plain_rnn_stride": math.inf, "sgd_gated_rnn_stride": math.inf, "sgd_stride": math.inf}

PARTS: Sequence[Part] = (
    Part("no_lost", "going on when all that was learned is lost", (), {_TREATMENT: {"learned": math.inf}}),
    Part("no_vain", "going on when clipping is in vain", (), {_TREATMENT: {"little": -math.inf}}),
    Part(
        "no_fled",
        "going on when the loss has fled",
        (),
        {_TREATMENT: {"fled": _NEVER, "fled_without_displacement": _NEVER}},
    ),
    Part("one_fled", "a longer wait where displacement is unknown", (), {_TREATMENT: {"fled_without_displacement": 5}}),
    Part("no_worse_margin", "the margin of a loss that is worse", (), {_TREATMENT: {"worse_margin": 0.0}}),
    Part("patience_20", "a patience of its own", (), {_TREATMENT: {"patience": 20}}),
    Part("no_calm", "withdrawal", (), {_TREATMENT: {"calm": _NEVER}}),
    Part("no_soon", "going further back soon after", ("Rollback",), {_ROLLBACK: {"soon": -1}}),
    Part("no_rise", "a ceiling that rises", ("Rollback",), {_ROLLBACK: {"highest_ceiling": 0.0}}),
    Part("no_finite_readings", "no rollback after bad inputs", ("Rollback",), {_ROLLBACK: {"finite_readings": 0}}),
    Part("no_raised", "the snapshot's rate where it was raised", ("Rollback",), {_ROLLBACK: {"raised": math.inf}}),
    Part("no_first_stride", "a first step by its length", ("Rollback",), {_ROLLBACK: {"first_stride": math.inf}}),
    Part("no_near_loss", "the curvature near a snapshot only", ("Rollback",), {_ROLLBACK: {"near_loss": math.inf}}),
    Part("clip_half", "up to twice the usual norm", ("ClipNorm",), {_CLIP: {"lasting_for_short_steps": 0.5}}),
    Part(
        "clip_one",
        "all but the usual norm",
        ("ClipNorm",),
        {_CLIP: {"lasting": 1.0, "lasting_for_short_steps": 1.0, "after_bad_batch": 1.0}},
    ),
    Part(
        "clip_two",
        "all but twice the usual norm",
        ("ClipNorm",),
        {_CLIP: {"lasting": 2.0, "lasting_for_short_steps": 2.0, "after_bad_batch": 2.0}},
    ),
    Part(
        "no_sigmoid",
        "sizes of sigmoid nets",
        ("Reinitialize",),
        {_LSUV: {"sigmoid_cnn_size": 1.0, "sigmoid_cnn_output_size": 0.05}},
    ),
    Part(
        "no_positive",
        "a small output behind positive activations",
        ("Reinitialize",),
        {_LSUV: {"sigmoid_cnn_size": 1.0, "sigmoid_cnn_output_size": 1.0, "positive_output_size": 1.0}},
    ),
    Part("one_size", "smaller sizes in turn", ("Reinitialize",), {_INIT: {"bounded_sizes": (1.0,)}}),
    Part("no_mirror", "mirrored layers", ("Reinitialize",), {_INIT: {"least_mirrored_depth": _NEVER}}),
    Part(
        "no_fit",
        "steps fitted after an initialisation",
        ("Reinitialize",),
        {_FITTED: {**_STRIDES, "clip": math.inf, "most_change": 1.0}},
    ),
    Part("no_shallow", "shorter steps in deep nets", ("AdaptiveStep",), {_STEP: {"shallow": _NEVER}}),
    Part("no_fallen", "a rate that has come down", ("AdaptiveStep",), {_STEP: {"fallen": 0.0}}),
)
