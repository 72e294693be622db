"""Deciding: which remedies answer which alert, and in which order."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from grad_callbacks.alerts import KINDS, Alert, Kind
from grad_callbacks.gradients.sharding import is_first_process
from grad_callbacks.interventions import Intervention
from grad_callbacks.remedies import REMEDIES, OptimizerStep, Remedy, SkipStep
from grad_callbacks.spec import build, load_named_states

log = logging.getLogger("grad_callbacks")

Plan = Mapping[str, Sequence[Any]]

# A single spike needs no more than the clip that acts in the same step; a second one is mostly a learning
# rate too high, which clipping alone does not cure. On diverging digits networks (rates .1, .2 and .5, five
# seeds each) factors 0.3 and 0.1 saved 12 of 15 and 0.5 saved 9; 0.3 is the milder of the two. No remedy that
# acts on gradients brings back a vanishing one: the alert advises the structural cures.
DEFAULT_PLAN: Plan = {"nonfinite": ["SkipStep"], "exploding": ["ClipNorm", {"ReduceLR": 0.3}], "vanishing": []}


class Prescription:
    """Answers each alert with the first remedy of its list that still has something to give.

    A critical alert goes on to the next remedy when the first is on already; a warning does not. A remedy that
    was switched on stays on.

    Args:
        plan: For each kind of alert its remedies in order: objects, names or plain values (see
            :func:`grad_callbacks.spec.build`). Kinds that are left out get no remedy.

    Raises:
        ValueError: If a kind or a remedy is unknown, or an argument is wrong.

    Attributes:
        remedies: For each kind of alert its remedies, in order.
        left_out: Classes of remedies that are passed over, because somebody else does their work.
    """

    def __init__(self, plan: Plan = DEFAULT_PLAN) -> None:
        self.left_out: tuple[type, ...] = ()
        if not isinstance(plan, Mapping):
            raise ValueError(f"prescription must map kinds of alert to lists of remedies, got {plan!r}")
        unknown = [kind for kind in plan if kind not in KINDS]
        if unknown:
            raise ValueError(f"prescription names the unknown alert kind {unknown[0]!r}; known are {', '.join(KINDS)}")
        self.remedies: dict[Kind, list[Remedy]] = {}
        for kind in KINDS:
            specs = plan.get(kind) or []
            if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence):
                raise ValueError(f"prescription[{kind!r}] must be a list of remedies, got {specs!r}")
            self.remedies[kind] = [build(spec, REMEDIES, "remedy", Remedy) for spec in specs]

    def leave_out(self, *remedies: type, why: str) -> None:
        """Pass over remedies of these classes from now on, and say so if the plan has any."""
        self.left_out += remedies
        if any(isinstance(remedy, remedies) for planned in self.remedies.values() for remedy in planned):
            names = ", ".join(remedy.__name__ for remedy in remedies)
            if is_first_process():
                log.warning("left out of the remedies: %s (%s)", names, why)

    @property
    def skips_nonfinite(self) -> bool:
        """True if a non-finite gradient is answered by skipping its step, which suffers no delay."""
        return any(isinstance(remedy, SkipStep) for remedy in self.remedies["nonfinite"])

    @property
    def skips_judged(self) -> bool:
        """True if a step may have to be skipped for what a rule says of it: it must be judged before it is taken."""
        kinds: tuple[Kind, ...] = ("exploding", "vanishing")
        return any(isinstance(remedy, SkipStep) for kind in kinds for remedy in self.remedies[kind])

    def answer(self, alert: Alert, step: OptimizerStep) -> Intervention | None:
        """Switch on a remedy for ``alert``; None if there is none to switch on.

        A warning gets the first remedy only: an event that has passed is no reason to escalate.
        """
        remedies = [remedy for remedy in self.remedies[alert.kind] if not isinstance(remedy, self.left_out)]
        for remedy in remedies[:1] if alert.severity == "warning" else remedies:
            detail = remedy.engage(step, alert.evidence)
            if detail is not None:
                detail["steps"] = 0
                name = type(remedy).__name__
                return Intervention(alert.step, name, alert.kind, detail, alert.optimizer)
        return None

    def act(self, step: OptimizerStep) -> dict[tuple[Kind, str], bool | Tensor]:
        """Let every remedy that is on act on ``step``.

        Returns:
            For kind and name of each remedy whether it changed something, as it says itself.
        """
        acted: dict[tuple[Kind, str], bool | Tensor] = {}
        for kind, remedies in self.remedies.items():
            for remedy in remedies:
                if not step.is_skipped and not isinstance(remedy, self.left_out):
                    acted[kind, type(remedy).__name__] = remedy.act(step)
        return {key: did for key, did in acted.items() if did is not False}

    def state_dict(self) -> dict[str, Any]:
        """Return name and state of every remedy, in the plan's order."""
        return {
            kind: [[type(remedy).__name__, remedy.state_dict()] for remedy in remedies]
            for kind, remedies in self.remedies.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: If the state was saved under another plan.
        """
        for kind, remedies in self.remedies.items():
            load_named_states(remedies, state[kind], f"remedies for {kind!r}")
