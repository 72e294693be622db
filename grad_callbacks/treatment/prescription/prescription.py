"""Deciding: which remedies answer which alert, in which order, and when they are withdrawn."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from grad_callbacks._utils.build import load_named_states
from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.measurement.sharding import is_first_process
from grad_callbacks.treatment.prescription.follow_up import (
    CALM,
    FLED,
    NEW_NORMAL,
    PASSING,
    PATIENCE,
    STUBBORN,
    TRIAL,
    WATCH,
    Treatment,
)
from grad_callbacks.treatment.prescription.parsing import kind_of, proves_itself, read_plan
from grad_callbacks.treatment.prescription.presets import AT_THE_START, DEFAULT_PLAN, Plan
from grad_callbacks.treatment.remedies import (
    AdaptiveStep,
    ClipNorm,
    MaskUndefined,
    Reinitialize,
    Remedy,
    Rollback,
    SkipStep,
)
from grad_callbacks.treatment.remedies.rollback import was_raised
from grad_callbacks.treatment.step import OptimizerStep

log = logging.getLogger("grad_callbacks")


class Prescription:
    """Answers each alert with the first remedy of its list that still has something to give.

    A critical alert goes on to the next remedy when the first is on already; a warning does not, and neither does an
    explosion that clipping absorbs, unless the learning rate is too high and little was learned since. Where that rate
    is to blame, steps that do not depend on it absorb it too. Trouble that is still there 40 readings after a remedy
    was switched on goes on, and so does trouble whose loss has doubled and does not come down by itself, or that has
    left a net behind which no gradient comes through. Going back to earlier weights ends a clipping whose bound was
    taken from the trouble. A remedy against what passes, a bad batch say, is withdrawn when the run has been calm for
    200 readings, once; any is withdrawn that has made the loss worse and gives way to the next. What came of each
    intervention is written into its detail: ``outcome`` is ``"helped"``, ``"no change"`` or ``"worse"``.

    Args:
        plan: For each kind of alert its remedies in order: objects, names or plain values (see
            :func:`grad_callbacks._utils.build.build`). Kinds that are left out get no remedy. A key such as
            ``"exploding: bad batch"`` answers critical alerts of that kind and cause in place of the kind's list.
            Or the name of a preset: ``"full"``, the default; ``"gentle"``, which only clips, lowers the rate and skips;
            and ``"observe"``, which does nothing.

    Raises:
        ValueError: If a kind or a remedy is unknown, an argument is wrong, or a list has a remedy that stands beside
            others (``AdaptiveStep``) and none that it could stand beside.

    Attributes:
        remedies: For each kind of alert, or kind and cause, its remedies, in order.
        left_out: Classes of remedies that are passed over, because somebody else does their work.
    """

    def __init__(self, plan: Plan | str = DEFAULT_PLAN) -> None:
        self.left_out: tuple[type, ...] = ()
        self.remedies = read_plan(plan)
        # What each remedy, by its first place in the lists, was last switched on for.
        self._answers: dict[str, str] = {}
        self._treatments: list[Treatment] = []
        self._nonfinite = 0  # readings in a row

    def leave_out(self, *remedies: type, why: str) -> None:
        """Pass over remedies of these classes from now on, and say so if the plan has any."""
        self.left_out += remedies
        planned = {type(remedy).__name__ for _, remedy in self._each() if isinstance(remedy, remedies)}
        if planned and is_first_process():
            log.warning("left out of the remedies: %s (%s)", ", ".join(sorted(planned)), why)

    @property
    def skips_nonfinite(self) -> bool:
        """True if a non-finite gradient is answered by skipping its step, which suffers no delay."""
        return any(isinstance(remedy, (SkipStep, MaskUndefined)) for remedy in self._of_kind("nonfinite"))

    @property
    def skips_judged(self) -> bool:
        """True if a step may have to be skipped for what a rule says of it: it must be judged before it is taken."""
        kinds: tuple[str, ...] = ("exploding", "vanishing")
        return any(isinstance(remedy, SkipStep) for kind in kinds for remedy in self._of_kind(kind))

    @property
    def needs_snapshots(self) -> bool:
        """True if a remedy may want to go back to earlier weights."""
        return any(getattr(remedy, "needs_snapshots", False) for _, remedy in self._each())

    @property
    def looks_at_the_start(self) -> bool:
        """True if there is something to be done before the first step."""
        return any(isinstance(remedy, AT_THE_START) and not remedy.supplements for _, remedy in self._each())

    def answer(
        self,
        alert: Alert,
        step: OptimizerStep,
        loss: float = math.nan,
        after: int = -1,
        until: int = 99,
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
        if step.run_state is not None:
            step.run_state.alert = alert
        key = key or self.list_for(alert, step)
        remedies = self.remedies[key]
        is_passing = alert.severity == "warning" and after < 0 and key == alert.kind
        usable = [
            place
            for place, remedy in enumerate(remedies)
            if not isinstance(remedy, self.left_out) and not remedy.supplements and not self._is_spent(remedy)
        ]
        proving = [place for place in usable if remedies[place].proves_itself]
        if after < 0 and step.run_state is not None and self._is_absorbed(alert, step.run_state.course):
            usable = proving
        elif is_passing:
            usable = usable[: len(proving) + 1]
        for place in [place for place in usable if after < place <= until]:
            detail = remedies[place].engage(step, alert.evidence)
            if detail is not None:
                detail["steps"] = 0
                name = type(remedies[place]).__name__
                made = Intervention(alert.step, name, alert.kind, detail, alert.optimizer)
                self._answers[self._key(remedies[place])] = alert.kind
                for earlier in self._treatments:
                    if earlier.made.alert_kind == alert.kind:
                        earlier.watches_the_loss = False  # the latest does: each would lower the rate again
                        if earlier.is_open:  # what is switched on in its place will be judged; it was not enough
                            earlier.is_open = False
                            earlier.made.detail.setdefault("outcome", "no change")
                if isinstance(remedies[place], Rollback):
                    self._stop_clipping(alert.kind, step)
                self._treatments.append(Treatment(made, alert, key, place, loss=loss))
                return made
        return None

    def support(self, interventions: Iterable[Intervention], step: OptimizerStep) -> list[Intervention]:
        """Switch on what is to stand beside remedies that were switched on in this step."""
        beside = []
        for treatment in [t for t in self._treatments if any(t.made is made for made in interventions)]:
            for place, remedy in enumerate(self.remedies[treatment.key]):
                if not remedy.supplements or isinstance(remedy, self.left_out) or self._is_spent(remedy):
                    continue
                detail = remedy.engage(step, treatment.alert.evidence)
                if detail is not None:
                    made = replace(treatment.made, remedy=type(remedy).__name__, detail=detail | {"steps": 0})
                    self._answers[self._key(remedy)] = made.alert_kind
                    self._treatments.append(replace(treatment, made=made, place=place))
                    beside.append(made)
        return beside

    def answer_at_sight(self, alert: Alert, step: OptimizerStep, loss: float) -> Intervention | None:
        """Switch on a remedy that proves itself, which needs no trial; None if none of them sees what is wrong."""
        return self._answer_with(proves_itself, alert, step, loss)

    def begin(self, alert: Alert, step: OptimizerStep) -> Intervention | None:
        """Answer what the first reading has shown, if that can be done before the first step; None if it cannot."""
        if "displacement" in alert.evidence:
            return self.answer(alert, step)
        return self._answer_with(lambda remedy: isinstance(remedy, AT_THE_START), alert, step)

    def _answer_with(
        self, is_meant: Callable[[Remedy], bool], alert: Alert, step: OptimizerStep, loss: float = math.nan
    ) -> Intervention | None:
        """Switch on the first remedy of those that are meant; None if none of them has anything to give."""
        for place, remedy in enumerate(self.remedies[self.list_for(alert, step)]):
            made = self.answer(alert, step, loss, after=place - 1, until=place) if is_meant(remedy) else None
            if made is not None:
                return made
        return None

    def follow(
        self, reading: Reading, active: Sequence[str], course: LossLevel, step: OptimizerStep, is_near: bool = True
    ) -> list[Intervention]:
        """Watch what comes of earlier interventions: conclude, go on to the next remedy, withdraw.

        Args:
            reading: The step's reading, judged already.
            active: Kinds of trouble that are still there.
            course: The course of the loss.
            step: The step.
            is_near: The reading was alarming, or nearly.

        Returns:
            What was switched on because something before it did not help.
        """
        self._nonfinite = 0 if reading.is_finite or reading.overflow else self._nonfinite + 1
        is_well = reading.is_finite and not active and not is_near
        for _, remedy in self._each():
            note = getattr(remedy, "note", None)
            if note is not None:
                note(step, is_well)
        interventions = []
        for treatment in list(self._treatments):
            kind = treatment.made.alert_kind
            treatment.age += 1
            treatment.calm = 0 if kind in active else treatment.calm + 1
            is_stuck = self._is_stuck(treatment, reading, course, is_near)
            is_calm = treatment.calm > 0 and reading.is_finite
            if treatment.is_open and (is_stuck or treatment.age >= (TRIAL if is_calm else PATIENCE)):
                outcome = treatment.conclude(is_calm, course)
                # Single non-finite steps are skipped, and may come again; large gradients may be clipped for good.
                goes_on = kind in active and kind != "nonfinite" and not (kind == "exploding" and treatment.clips)
                if is_stuck or goes_on:
                    more = self.answer(treatment.alert, step, treatment.loss, after=treatment.place, key=treatment.key)
                    if more is not None:
                        interventions.append(more)
                        if outcome == "worse":
                            self._withdraw(treatment, step)
            elif (
                treatment.watches_the_loss
                and treatment.age <= WATCH
                and (treatment.is_lost(reading, course) or treatment.has_died(active))
            ):
                treatment.watches_the_loss = False
                # What goes further each time, as a rollback does, and has helped for a while gets another chance.
                is_rollback = isinstance(self.remedies[treatment.key][treatment.place], Rollback)
                tried = treatment.place - (is_rollback and treatment.age > FLED)
                more = self.answer(treatment.alert, step, treatment.loss, after=tried, key=treatment.key)
                interventions += [] if more is None else [more]
            elif treatment.is_on and treatment.calm >= CALM and self._may_be_withdrawn(treatment):
                self._withdraw(treatment, step)
        return interventions

    def others(self, key: str) -> list[tuple[str, int]]:
        """Key and place of each remedy that is not in the list at ``key``, and not left out."""
        mine = set(map(id, self.remedies[key]))
        places = [(first.partition("#"), remedy) for first, remedy in self._each()]
        return [
            (where, int(place))
            for (where, _, place), remedy in places
            if id(remedy) not in mine and not isinstance(remedy, self.left_out)
        ]

    def _is_spent(self, remedy: Remedy) -> bool:
        """True for new weights that the run has been given already, by another place in the plan."""
        return isinstance(remedy, Reinitialize) and any(
            treatment.made.remedy == Reinitialize.__name__ for treatment in self._treatments
        )

    def _is_absorbed(self, alert: Alert, course: LossLevel | None) -> bool:
        """True if clipping is on and the loss bears what gradients come: nothing more is needed.

        Steps of a length of their own are, whatever they were begun for, the answer to a rate that is too high.
        """
        clips = [
            t
            for t in self._treatments
            if t.is_on and (t.clips if t.made.alert_kind == "exploding" else t.is_free_of_the_rate(alert))
        ]
        if alert.kind != "exploding" or not clips or course is None or not course.count:
            return False
        return not (clips[-1].suffers(course) or clips[-1].is_in_vain(alert, course))

    def _is_stuck(self, treatment: Treatment, reading: Reading, course: LossLevel, is_near: bool) -> bool:
        """True if no step is finite any more, or the loss has fled: waiting for the end of the trial is a waste."""
        if treatment.made.alert_kind == "exploding":
            # Under adaptive optimizers a jump in the loss's scale looks alike until it is the new normal.
            patience = FLED if math.isfinite(reading.displacement) else NEW_NORMAL
            return is_near and treatment.age >= patience and treatment.has_fled(reading, course)
        if treatment.made.alert_kind != "nonfinite" or treatment.age < 2:
            return False
        bad_weights = reading.weight_norms is not None and not all(map(math.isfinite, reading.weight_norms))
        return self._nonfinite >= STUBBORN or (self._nonfinite > 0 and bad_weights)

    def _may_be_withdrawn(self, treatment: Treatment) -> bool:
        # A rate that was too high once is so again; and what came back after a withdrawal stays.
        before = [t for t in self._treatments if t.made.remedy == treatment.made.remedy and not t.is_on]
        return treatment.alert.cause in PASSING and not before

    def _withdraw(self, treatment: Treatment, step: OptimizerStep) -> None:
        treatment.is_on = False
        remedy = self.remedies[treatment.key][treatment.place]
        release = getattr(remedy, "release", None)
        if release is not None and release(step):
            treatment.made.detail["withdrawn_at"] = step.reading.step

    def _stop_clipping(self, kind: str, step: OptimizerStep) -> None:
        """Withdraw a bound that was taken from trouble that has been undone: the rate is lowered in its place.

        Such a treatment is forgotten: a clip that is switched on later is not one that came back after a calm.
        """
        for treatment in list(self._treatments):
            remedy = self.remedies[treatment.key][treatment.place]
            is_taken_from_it = isinstance(remedy, ClipNorm) and remedy.max_norm is None
            if treatment.is_on and treatment.made.alert_kind == kind and is_taken_from_it:
                self._withdraw(treatment, step)
                self._treatments.remove(treatment)

    def attach(self, model: nn.Module) -> None:
        """Put the hooks in place of the remedies that live in the model."""
        for _, remedy in self._each():
            attach = getattr(remedy, "attach", None)
            if attach is not None:
                attach(model)

    def detach(self) -> None:
        """Take all hooks of remedies away."""
        for _, remedy in self._each():
            detach = getattr(remedy, "detach", None)
            if detach is not None:
                detach()

    def before_backward(self, loss: Tensor) -> None:
        """Let the remedies that work in the backward pass prepare for that of ``loss``."""
        for _, remedy in self._each():
            prepare = getattr(remedy, "before_backward", None)
            if prepare is not None and not isinstance(remedy, self.left_out):
                prepare(loss)

    def act(self, step: OptimizerStep) -> dict[tuple[str, str], bool | Tensor]:
        """Let every remedy that is on act on ``step``.

        Returns:
            For kind and name of each remedy whether it changed something, as it says itself.
        """
        acted: dict[tuple[str, str], bool | Tensor] = {}
        # What stands beside others follows them, and steps of other lengths have the last word: they may have to wait
        # for the weights that others have changed.
        for key, remedy in sorted(self._each(), key=lambda e: (isinstance(e[1], AdaptiveStep), e[1].supplements)):
            if not step.is_skipped and not isinstance(remedy, self.left_out):
                kind = self._answers.get(key, kind_of(key.partition("#")[0]))
                name = kind, type(remedy).__name__
                acted[name] = remedy.act(step) | acted.get(name, False)
        return {key: did for key, did in acted.items() if did is not False}

    def list_for(self, alert: Alert, step: OptimizerStep) -> str:
        """Which list answers an alert: one spike is no proof of its cause, unless the rate has just been raised."""
        cause = alert.cause
        if alert.severity == "warning":
            cause = "learning rate too high" if alert.kind == "exploding" and was_raised(step) else ""
        key = f"{alert.kind}: {cause}"
        return key if key in self.remedies else alert.kind

    def _of_kind(self, kind: str) -> Iterable[Remedy]:
        return [remedy for key, remedies in self.remedies.items() if kind_of(key) == kind for remedy in remedies]

    def _each(self) -> Iterator[tuple[str, Remedy]]:
        """Each remedy once, with its first place in the lists."""
        seen: set[int] = set()
        for key, remedies in self.remedies.items():
            for place, remedy in enumerate(remedies):
                if id(remedy) not in seen:
                    seen.add(id(remedy))
                    yield f"{key}#{place}", remedy

    def _key(self, wanted: Remedy) -> str:
        return next(key for key, remedy in self._each() if remedy is wanted)

    def state_dict(self, made: Sequence[Intervention] = ()) -> dict[str, Any]:
        """Return name and state of every remedy, in the plan's order, and the treatments under way.

        Args:
            made: The record's interventions, in which treatments are referred to.
        """
        places = {id(intervention): place for place, intervention in enumerate(made)}
        states: dict[str, Any] = {
            key: [[type(remedy).__name__, remedy.state_dict()] for remedy in remedies]
            for key, remedies in self.remedies.items()
        }
        return states | {
            "(answers)": dict(self._answers),
            "(treatments)": [t.state_dict(places[id(t.made)]) for t in self._treatments if id(t.made) in places],
            "(nonfinite)": self._nonfinite,
        }

    def load_state_dict(self, state: Mapping[str, Any], made: Sequence[Intervention] = ()) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: If the state was saved under another plan.
        """
        for key, remedies in self.remedies.items():
            load_named_states(remedies, state.get(key, []), f"remedies for {key!r}")
        self._answers = dict(state["(answers)"])
        self._treatments = [Treatment.of(t, made[t["made"]]) for t in state["(treatments)"] if t["made"] < len(made)]
        self._nonfinite = state["(nonfinite)"]
