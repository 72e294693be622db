"""What the runs of one optimizer say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from experiments.optimizers.catalogue import Make
from experiments.optimizers.runs import FAULTS, Ran, train


@dataclass
class Verdict:
    """What came of one optimizer.

    Attributes:
        untried: Why it could not be tried: what it raises alone; empty if it was.
        changed: Callbacks under which a healthy run has other weights than alone.
        ended: Callback, fault and error of runs that end under a callback and not alone.
        rows: For each fault the loss alone and under the guard, and the guard's remedies.
    """

    untried: str = ""
    changed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    rows: dict[str, tuple[float, float, list[str]]] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Nothing was changed, and nothing has ended through a callback."""
        return not self.changed and not self.ended


def judge(make: Make) -> Verdict:
    """Train an optimizer alone and under both callbacks, healthy and with each fault."""
    try:
        alone = {fault: train(make, "alone", fault) for fault in FAULTS}
    except Exception as error:  # when it is made
        return Verdict(untried=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    healthy, verdict = alone["none"], Verdict()
    if healthy.error:
        return Verdict(untried=healthy.error)
    if not math.isfinite(healthy.loss):
        return Verdict(untried="its loss is NaN alone, with its defaults and without a fault")
    for how, fault in [("monitor", "none"), *(("guard", fault) for fault in FAULTS)]:
        _note(verdict, how, fault, train(make, how, fault), alone[fault])
    if verdict.changed and train(make, "alone", "none").weights != healthy.weights:
        return Verdict(untried="two runs alone differ: it draws numbers of its own")
    return verdict


def _note(verdict: Verdict, how: str, fault: str, ran: Ran, alone: Ran) -> None:
    if ran.error and not alone.error:
        verdict.ended.append(f"{how}, {fault}: {ran.error}")
    if fault == "none" and ran.weights != alone.weights:
        verdict.changed.append(how)
    if how == "guard":
        verdict.rows[fault] = (alone.loss if not alone.error else math.nan, ran.loss, ran.remedies)
