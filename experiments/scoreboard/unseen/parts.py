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


_TREATMENT, _ROLLBACK = "prescription.treatment", "remedies.rollback"
_SUPPORT = "remedies._support"
_NEVER = 10**9  # readings

PARTS: Sequence[Part] = (
    Part("no_passing", "going on when what is wrong does not pass", (), {_TREATMENT: {"passing": _NEVER}}),
    Part("no_lost", "going on when all that was learned is lost", (), {_TREATMENT: {"lost": (math.inf, math.inf)}}),
    Part("no_calm", "withdrawing", (), {_TREATMENT: {"calm": _NEVER}}),
    Part("no_rise", "a ceiling of the rate that rises", ("Rollback",), {_ROLLBACK: {"tenfold": math.inf}}),
    Part("no_raised", "the snapshot's rate where it was raised", ("Rollback",), {_ROLLBACK: {"raised": math.inf}}),
    Part("no_stride", "short steps", ("Reinitialize",), {f"{_SUPPORT}.short_steps": {"stride": math.inf}}),
    Part("no_small_output", "small outputs", ("Reinitialize",), {f"{_SUPPORT}.lsuv": {"positive_output_size": 1.0}}),
)
