"""Deciding: which remedies answer which alert, in which order, and when they are withdrawn."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from grad_callbacks._utils.checkpoint import load_named_states, missing_keys_named
from grad_callbacks.events import KINDS, Alert, Intervention
from grad_callbacks.measurement import QuietBlock, Reading
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.prescription.choosing import LAST, Chooser
from grad_callbacks.treatment.prescription.follow_up import FollowUp
from grad_callbacks.treatment.prescription.parsing import (
    kind_of,
    plan_named,
    read_plan,
    refuse_unanswerable,
    with_defaults,
)
from grad_callbacks.treatment.prescription.planned import PlannedRemedies
from grad_callbacks.treatment.prescription.presets import DEFAULT_PLAN, OBSERVE, PRESETS, Plan
from grad_callbacks.treatment.prescription.state import PrescriptionState
from grad_callbacks.treatment.remedies import Remedy
from grad_callbacks.treatment.step import OptimizerStep

NONFINITE = "nonfinite"  # the kind whose steps a device can skip by itself, before any alert


class Prescription:
    """Answers each alert with the first remedy of its list that still has something to give.

    A critical alert goes on to the next remedy when the first is on already; a warning does not, and neither does an
    explosion that clipping absorbs, unless the learning rate is too high and little was learned since. Where that rate
    is to blame, steps that do not depend on it absorb it too.

    Escalates to the next remedy if the alert is still active after 40 readings, if the loss has doubled and is not
    recovering, or if the network is dead. Going back to earlier weights ends a clipping whose bound was taken from the
    alert. A remedy against an event that passes, a bad batch say, is withdrawn once, when the run has been calm for 200
    readings; any is withdrawn that has made the loss worse and gives way to the next. What came of each intervention is
    written into its detail: ``outcome`` is ``"helped"``, ``"no change"`` or ``"worse"``.

    A remedy that raises an error is logged and left out from then on; the training goes on.

    Args:
        plan: For each kind of alert its remedies in order: objects, names or plain values (see
            :func:`grad_callbacks._utils.build.build`). Kinds that are left out get no remedy. A key such as
            ``"exploding: bad batch"`` answers critical alerts of that kind and cause in place of the kind's list.
            Or the name of a preset: ``"full"``, the default; ``"gentle"``, which only clips, lowers the rate and skips;
            and ``"observe"``, which does nothing. With the first two, alerts of a kind of one's own are answered with
            the remedies that their rule declares.

    Raises:
        ValueError: If a kind, a cause or a remedy is unknown, an argument is wrong, or a list has a remedy that
            supplements others (``AdaptiveStep``) and none that it could supplement.

    Attributes:
        planned: The remedies, all together.
    """

    def __init__(self, plan: Plan | str = DEFAULT_PLAN) -> None:
        self._plan = plan_named(plan)
        self._is_preset = any(self._plan is preset for preset in PRESETS.values())
        self._takes_defaults = self._is_preset and self._plan is not OBSERVE
        self.planned = PlannedRemedies(read_plan(self._plan))
        self._state = PrescriptionState()
        self._chooser = Chooser(self.planned, self._state)
        self._follow_up = FollowUp(self.planned, self._state, self._chooser)

    @property
    def remedies(self) -> dict[str, list[Remedy]]:
        """For each kind of alert, or kind and cause, its remedies, in order."""
        return self.planned.lists

    @property
    def left_out(self) -> tuple[str, ...]:
        """Traits; remedies that have one of them are passed over, because something else does their work."""
        return self.planned.left_out

    @left_out.setter
    def left_out(self, traits: tuple[str, ...]) -> None:
        self.planned.left_out = traits

    def leave_out(self, *traits: str, why: str) -> None:
        """Pass over remedies with one of these traits from now on, and log it if the plan has any.

        Args:
            traits: Such as ``"clips"`` (see :class:`~grad_callbacks.Remedy`).
            why: Goes into the log.

        Raises:
            ValueError: If remedies have no such trait.
        """
        self.planned.leave_out(*traits, why=why)

    def prepare_for(self, kinds: Collection[str]) -> None:
        """Fit the plan to the kinds of alert that the rules raise.

        A preset gets the remedies that rules of one's own declare for their kinds. Where a remedy may act before the
        first step, the first reading is judged by itself too, and may raise any built-in kind.

        Raises:
            ValueError: If the user's own plan answers a kind that none of the rules raises.
        """
        if not self._is_preset:
            refuse_unanswerable(self._plan, {*kinds, *(KINDS if self.looks_at_the_start else ())})
        elif self._takes_defaults and (plan := with_defaults(self._plan, kinds)).keys() != self._plan.keys():
            self._plan, self.planned.lists = plan, read_plan(plan)

    @property
    def takes_own_steps(self) -> bool:
        """True while the steps do not follow from the gradients that are read."""
        return any(remedy.takes_own_steps for _, remedy in self.planned.each())

    @property
    def skips_nonfinite(self) -> bool:
        """True if a non-finite gradient is answered by skipping its step, which suffers no delay."""
        return any(remedy.skips_nonfinite for remedy in self.planned.of_kind(NONFINITE))

    @property
    def skipping_remedy(self) -> str:
        """The name of the remedy that skips non-finite steps and nothing else; empty if there is none."""
        skipping = (r for r in self.planned.of_kind(NONFINITE) if r.skips_steps and r.skips_nonfinite)
        return next((type(remedy).__name__ for remedy in skipping), "")

    @property
    def skips_judged(self) -> bool:
        """True if a step may have to be skipped for what a rule says of it: it must be judged before it is taken."""
        kinds = {kind_of(key) for key in self.remedies} - {NONFINITE}
        return any(remedy.skips_steps for kind in kinds for remedy in self.planned.of_kind(kind))

    @property
    def needs_snapshots(self) -> bool:
        """True if a remedy may want to go back to earlier weights."""
        return any(remedy.needs_snapshots for _, remedy in self.planned.each())

    @property
    def looks_at_the_start(self) -> bool:
        """True if there is something to be done before the first step."""
        return any(remedy.acts_at_start and not remedy.supplements for _, remedy in self.planned.each())

    def list_for(self, alert: Alert, step: OptimizerStep) -> str:
        """The key of the list that answers an alert."""
        return self._chooser.list_for(alert, step)

    def answer(
        self,
        alert: Alert,
        step: OptimizerStep,
        loss: float = math.nan,
        after: int = -1,
        until: int = LAST,
        key: str = "",
    ) -> Intervention | None:
        """Switch on a remedy for ``alert``; None if there is none to switch on.

        A warning gets the first remedy only: an event that has passed is no reason to escalate. Remedies that prove
        themselves do not count there, and are asked even where clipping is all that is needed.

        Args:
            alert: Is answered.
            step: The step that raised it.
            loss: Level of the loss before it.
            after: Place in the list of what has been tried already.
            until: Place of the last that may be tried.
            key: The list, if it is known already.
        """
        return self._chooser.answer(alert, step, loss, after, until, key)

    def answer_at_sight(self, alert: Alert, step: OptimizerStep, loss: float) -> Intervention | None:
        """Switch on a remedy that proves itself, which needs no trial; None if none of them finds what is wrong."""
        return self._chooser.answer_with(attrgetter("proves_itself"), alert, step, loss)

    def begin(self, alert: Alert, step: OptimizerStep) -> Intervention | None:
        """Answer what the first reading has shown, if that can be done before the first step; None if it cannot."""
        return self._chooser.begin(alert, step)

    def support(self, interventions: Iterable[Intervention], step: OptimizerStep) -> list[Intervention]:
        """Switch on what supplements remedies that were switched on in this step."""
        return self._chooser.support(interventions, step)

    def follow(
        self, reading: Reading, active: Sequence[str], loss_level: LossLevel, step: OptimizerStep, is_near: bool = True
    ) -> list[Intervention]:
        """Watch what comes of earlier interventions: conclude, go on to the next remedy, withdraw.

        Args:
            reading: The step's reading, judged already.
            active: Kinds of alert that are active still.
            loss_level: The level of the loss.
            step: The step.
            is_near: The reading was alarming, or nearly.

        Returns:
            What was switched on because something before it did not help.
        """
        return self._follow_up.follow(reading, active, loss_level, step, is_near)

    def idle_for(self, readings: int) -> int:
        """Return for how many readings of a run in which all is well no remedy needs to see the step.

        Args:
            readings: Readings so far.
        """
        return 0 if self._state.treatments or self._state.nonfinite else self.planned.idle_for(readings)

    def take_in(self, block: QuietBlock) -> None:
        """Show the remedies readings of steps that none of them needed to see."""
        self.planned.take_in(block)

    def attach(self, model: nn.Module) -> None:
        """Put the hooks in place of the remedies that need some in the model."""
        self.planned.attach(model)

    def detach(self) -> None:
        """Take all hooks of remedies away."""
        self.planned.detach()

    def before_backward(self, loss: Tensor) -> None:
        """Let the remedies that work in the backward pass prepare for that of ``loss``."""
        self.planned.before_backward(loss)

    def act(self, step: OptimizerStep) -> dict[tuple[str, str], bool | Tensor]:
        """Let every remedy that is on act on ``step``.

        Returns:
            For kind and name of each remedy whether it changed something, as it reports itself.
        """
        return self.planned.act(step, self._state.answers)

    def state_dict(self, made: Sequence[Intervention] = ()) -> dict[str, Any]:
        """Return name and state of every remedy, in the plan's order, and the treatments under way.

        Args:
            made: The record's interventions, in which treatments are referred to.
        """
        return self.planned.states() | self._state.state_dict(made)

    @missing_keys_named("the prescription")
    def load_state_dict(self, state: Mapping[str, Any], made: Sequence[Intervention] = ()) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: If the state was saved under another plan, or by another version.
        """
        for key, remedies in self.remedies.items():
            load_named_states(remedies, state.get(key, []), f"remedies for {key!r}")
        self._state.load_state_dict(state, made, self.remedies)
