"""The engine: for one optimizer, from gradients to reading to alerts to interventions, step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from grad_callbacks.alerts import Alert, Kind
from grad_callbacks.checks import at_least
from grad_callbacks.diagnosis import Batch, Follower
from grad_callbacks.gradients import (
    About,
    Gauge,
    Incoming,
    Reading,
    StepPlan,
    Transfer,
    arrives_later,
    replicas_of,
)
from grad_callbacks.interventions import Intervention
from grad_callbacks.outlook import Outlook
from grad_callbacks.prescription import Plan, Prescription
from grad_callbacks.record import Record
from grad_callbacks.remedies import (
    CLIPS,
    FloorNorm,
    OptimizerStep,
    Reinitialize,
    Rollback,
    Scene,
    SkipStep,
    Snapshots,
    Warmup,
)
from grad_callbacks.remedies.buffers import Buffers
from grad_callbacks.remedies.learning_rate import LearningRate
from grad_callbacks.remedies.optimizer_step import can_skip_on_device
from grad_callbacks.rules import RULES, Rule
from grad_callbacks.rules.first_sight import first_sight
from grad_callbacks.rules.loss_course import LossCourse
from grad_callbacks.spec import build, load_named_states
from grad_callbacks.surroundings import Surroundings

LEARNED = 0.1  # of the loss at the start: more than what a head learns by its bias alone

_TREATED: WeakSet[torch.optim.Optimizer] = WeakSet()  # by an engine with a prescription


@dataclass
class _Step:
    """A step from its measurement to its judgement."""

    incoming: Incoming
    handle: OptimizerStep
    lr_scale: float
    on_device: bool
    batch: Batch
    acted: dict[tuple[Kind, str], bool | Tensor] = field(default_factory=dict)
    results: Transfer | None = None


class Engine:
    """Watches one optimizer, and treats it if there is a prescription. Knows no framework but torch.

    Call :meth:`before_step` when the gradients are complete and before the optimizer uses them. The engine hooks
    into the optimizer to see the step itself; :meth:`close` takes the hooks away::

        engine = Engine(model, optimizer, prescription=Prescription())
        for inputs, targets in batches:
            loss = criterion(model(inputs), targets)
            loss.backward()
            engine.before_step(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
        engine.close()
        print(engine.record.report())

    On the CPU a step is measured, judged and treated before it is taken. A GPU runs behind the host, and the host
    does not wait for it: a step's numbers are judged when the next one comes, exactly one step later, so that all
    processes of a distributed run decide alike. What is switched on by then acts on the device itself, in time. Three
    things make the host wait: a prescription that skips the steps of exploding gradients; one that skips non-finite
    ones for an optimizer that is neither ``fused=True`` nor under a loss scaler, since only the host can make such an
    optimizer skip (fused SGD too in its first step, before it has momentum); and sparse gradients.

    In a sharded run every process must have an engine, and call it at the same steps.

    Args:
        model: Gives the layers their names and their order.
        optimizer: Its parameters are watched.
        rules: Judge the readings, in this order: rules, names or plain values; by default all built-in ones.
        prescription: Answers the alerts: a prescription or the plan for one; None never changes training.
        every_n_steps: Measure every so many steps. What happens between is not seen and not treated, except by
            remedies that are already switched on.
        record: Where the findings go; share it between the engines of several optimizers.
        index: The optimizer's index among several.
        on_outlook: Called with each step that has been judged.
        agree_on: Makes the layers' order the same on all processes, given this process's own.
        diagnose: Look for the cause of an alert in model and batch, which may take some passes over the batch. False
            leaves it at what the rule has guessed.

    Raises:
        ValueError: If a rule or remedy is unknown, ``every_n_steps`` is no whole number of at least 1, another engine
            treats the optimizer already, or the processes hold different layers.

    Attributes:
        record: Alerts, interventions, verdict, outcome, history and report.
        gauge: Takes the readings.
        seen: Number of steps so far.
        measured: Number of steps measured so far.
        nonfinite_steps: Readings with a non-finite gradient so far.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rules: Sequence[Any] | None = None,
        prescription: Prescription | Plan | str | None = None,
        every_n_steps: int = 1,
        record: Record | None = None,
        index: int = 0,
        on_outlook: Callable[[Outlook], object] | None = None,
        agree_on: Callable[[list[str]], list[str]] | None = None,
        diagnose: bool = True,
    ) -> None:
        self.model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.optimizer = _unwrapped(optimizer)
        chosen = list(RULES) if rules is None else rules
        self.rules: list[Rule] = [copy.deepcopy(build(rule, RULES, "rule", Rule)) for rule in chosen]
        plan = Prescription(prescription) if isinstance(prescription, Mapping | str) else prescription
        if plan is not None and not isinstance(plan, Prescription):
            raise ValueError(f"prescription must be a Prescription, a plan for one, or None, got {prescription!r}")
        if plan is not None and self.optimizer in _TREATED:
            raise ValueError(
                "another engine with a prescription treats this optimizer already, and they would lower its learning "
                "rate twice: keep one of them, or use a GradientMonitor for the other"
            )
        self.prescription = copy.deepcopy(plan)
        self.every_n_steps = at_least("every_n_steps", every_n_steps, 1)
        self.record = record or Record()
        self.index = index
        self.seen = self.measured = 0
        self.nonfinite_steps = 0
        self.learning_rate = LearningRate(self.optimizer)
        self._on_outlook = on_outlook
        self._judged = 0
        self._course = LossCourse()
        self._from_start = False
        self._blank: list[dict[str, Any]] = []  # the rules' states before the first reading
        self._first_cause: Kind | None = None
        self._latest: dict[tuple[Kind, str], Intervention] = {}
        self._last: tuple[int, Reading] | None = None  # with its place in the history
        self._is_closed = False
        self._unjudged: _Step | None = None
        self._untaken: _Step | None = None
        self._evaluations: int | None = None  # of the closure in the step under way; None outside of a step
        self._hooks = [
            self.optimizer.register_step_pre_hook(self._enter_step),
            self.optimizer.register_step_post_hook(self._after_step),
        ]
        if self.prescription is not None and isinstance(self.optimizer, torch.optim.LBFGS):
            self.prescription.leave_out(*CLIPS, FloorNorm, why="clipping would spoil the line search of LBFGS")
            self.prescription.leave_out(Reinitialize, Rollback, Warmup, why="LBFGS remembers where its weights were")
        self.gauge = Gauge(self.model, self.optimizer, agree_on, replicas_of(model))
        self._follower = Follower(self.model, self.gauge.layers.sharding is not None) if diagnose else None
        self._snapshots: Snapshots | None = None
        self._buffers: Buffers | None = None
        if self.prescription is not None:
            _TREATED.add(self.optimizer)
            if self.prescription.skips_nonfinite and any(b.is_floating_point() for b in self.model.buffers()):
                self._buffers = Buffers(self.model)
                self._buffers.settle(False)
            if self.prescription.needs_snapshots:
                self._snapshots = Snapshots(self.model, self.optimizer)

    @property
    def active(self) -> list[Kind]:
        """The kinds of trouble that were still there at the last reading."""
        return [rule.kind for rule in self.rules if rule.active]

    def before_backward(self, loss: Tensor) -> None:
        """Learn the order of the layers from the loss, and prepare its backward pass.

        Only a remedy that works in the backward pass itself needs this call (``MaskUndefined``).
        """
        self.gauge.look_at(loss)
        if self.prescription is not None:
            self.prescription.before_backward(loss)

    def before_step(
        self,
        step: int | None = None,
        loss: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
        around: Surroundings | None = None,
        batch: Batch | None = None,
    ) -> Outlook | None:
        """Measure, judge and treat the step that the optimizer is about to take.

        Args:
            step: Its number; by default steps are counted from 0.
            loss: The training loss, a scalar: it tells whether a remedy helped, and its graph the order of the
                layers, which is that of registration without it.
            scaler: The loss scaler that will take the step. Gradients are unscaled here if they are not yet, so do
                not unscale them afterwards.
            around: What is special about the step, instead of ``scaler`` and ``batch``.
            batch: The batch, and how to compute its loss again, for the diagnosis of an alert.

        Returns:
            What happened at the step that has been judged: this one, or on an accelerator the one before. None if
            there is no such step, or if it had no gradients.
        """
        if self._is_closed:
            raise RuntimeError("this engine was closed: make a new one to go on watching the optimizer")
        if self._evaluations is not None:
            self._evaluations += 1
            if self._evaluations > 1:
                return None  # LBFGS and the like come here several times in a step: the first is the step's reading
        outlook = self._take_up(step, loss, scaler, around, batch)
        if loss is not None:
            self.record.feed(loss, self.index)
        return outlook

    def _take_up(
        self,
        step: int | None,
        loss: Tensor | None,
        scaler: torch.amp.GradScaler | None,
        around: Surroundings | None,
        batch: Batch | None,
    ) -> Outlook | None:
        earlier = self.settle()
        self.learning_rate.follow()
        if loss is not None:
            self.gauge.look_at(loss)
        if around is None:
            around = Surroundings.of_scaler(scaler, self.optimizer) if scaler is not None else Surroundings()
            is_scalar = loss is not None and loss.numel() == 1
            around = replace(around, loss=loss if is_scalar else None, batch=batch or Batch())
        self._release_step()  # of a step that was not taken: a loss scaler has skipped it
        self.gauge.prepare()
        place, self.seen = self.seen, self.seen + 1
        if place == 0:
            self._open(step or 0)
        if place % self.every_n_steps and not self._latest:
            return earlier
        under_way = self._measure(place if step is None else step, around)
        if under_way is None:
            return earlier
        self.measured += 1
        self._unjudged = self._untaken = under_way
        if not under_way.on_device:
            return self.settle()
        self._act(under_way)
        return earlier

    def settle(self) -> Outlook | None:
        """Judge the step that is still to be judged and return what happened; None if there is none."""
        step, self._unjudged = self._unjudged, None
        if step is None:
            return None
        reading = step.incoming.reading
        if "moved" in step.incoming.measurement.companions:
            self._note_motion()
        if not reading.present.any():
            return None  # of a sharded run: seen only now
        step.handle.is_taken |= step.on_device
        self._last = (self.record.readings.append(reading), reading)
        self.nonfinite_steps += not reading.is_finite
        self._judged += 1
        before = self._course.level
        self._course.feed(reading.loss)
        raised = [alert for rule in self.rules if (alert := rule.judge(reading)) is not None and self._is_news(alert)]
        alerts = [self._diagnosed(alert, step) for alert in raised]
        begun = self._begin(reading, step) if not raised and self._judged == 1 else None
        if begun is not None:
            alerts.append(begun[0])
        for alert in alerts:
            self.record.add(alert, late=step.on_device)
        self.record.active[self.index] = self.active
        is_near = self._is_near
        self.gauge.motion.is_wanted = is_near
        if self._follower is not None:
            self._follower.note(reading, step.batch, step.incoming.plan.rates)
            self._follower.look_out(is_near)
        interventions = self._answer(alerts, step, before) if begun is None else self._enter(begun[1], reading, step)
        self._keep_a_snapshot(reading, alerts, is_near)
        if not step.on_device:
            self._act(step)
        norm = self._count_acts(step, reading)
        norm_clipped = min(norm, reading.clip_at) if reading.clip_at else norm
        outlook = Outlook(
            reading=reading,
            alerts=alerts,
            interventions=interventions,
            norm_clipped=norm_clipped,
            coefficient=norm_clipped / reading.norm if reading.norm > 0 else 1.0,
            lr_scale=step.lr_scale if step.on_device else self.learning_rate.scale,
            lr_effective=step.incoming.plan.rates[0] if step.on_device else self.learning_rate.effective()[0],
        )
        if self._on_outlook is not None:
            self._on_outlook(outlook)
        return outlook

    def close(self) -> None:
        """Judge what is left, and let go of the optimizer: hooks removed, the user's learning rates in place."""
        try:
            self.settle()
            self._take_up_motion()
        finally:  # a device that has failed gives no numbers any more
            self._is_closed = True
            self._release_step()
            self.gauge.close()
            if self._follower is not None:
                self._follower.close()
            self.learning_rate.remove()
            for hook in self._hooks:
                hook.remove()
            if self.prescription is not None:
                _TREATED.discard(self.optimizer)

    def _measure(self, number: int, around: Surroundings) -> _Step | None:
        on_device = arrives_later(self.gauge.layers.home) and not self._must_wait(around)
        plan = StepPlan.of(self.optimizer, self.learning_rate.effective())
        about = About(number, self.index, around.under_scaler, around.fill, around.clip_at, around.loss)
        incoming = self.gauge.take(plan, about, around.loss_scale)
        if incoming is None:
            return None
        handle = OptimizerStep(
            incoming, self.optimizer, self.learning_rate, around.loss_scale, around.under_scaler, on_device
        )
        return _Step(incoming, handle, self.learning_rate.scale, on_device, around.batch)

    def _must_wait(self, around: Surroundings) -> bool:
        """True if a remedy needs the judgement before the step is taken."""
        if self.prescription is None:
            return False
        skips_by_itself = around.under_scaler or can_skip_on_device(self.optimizer)
        return self.prescription.skips_judged or (self.prescription.skips_nonfinite and not skips_by_itself)

    @property
    def _is_near(self) -> bool:
        return any(getattr(rule, "near", False) for rule in self.rules)

    @property
    def _looks_at_the_start(self) -> bool:
        return self._from_start and self.prescription is not None and self.prescription.looks_at_the_start

    def _open(self, number: int) -> None:
        """Before the first step: note whether it is the run's first, and keep what it begins with."""
        # The steps of several optimizers are counted together.
        self._from_start = number <= self.index and not any(map(_has_stepped, self.optimizer.state.values()))
        self._blank = [copy.deepcopy(rule.state_dict()) for rule in self.rules]
        if self._snapshots is not None:
            self._snapshots.begin(number)

    def _begin(self, reading: Reading, step: _Step) -> tuple[Alert, Intervention] | None:
        """Repair what the first reading shows of the initialisation; None if there is nothing to repair."""
        if self.prescription is None or not self._looks_at_the_start:
            return None
        alert = first_sight(reading)
        if alert is None:
            return None
        alert = self._diagnosed(alert, step)
        step.handle.scene = self._scene(step)
        made = self.prescription.begin(alert, step.handle)
        return None if made is None else (alert, made)

    def _enter(self, made: Intervention, reading: Reading, step: _Step) -> list[Intervention]:
        self._latest[made.alert_kind, made.remedy] = made
        self.record.interventions.append(made)
        assert step.handle.scene is not None
        if step.handle.scene.began_anew is not None:
            self._begin_anew(step.handle.scene.began_anew, reading.step)
        return [made]

    def _scene(self, step: _Step) -> Scene:
        return Scene(
            self.model,
            step.batch,
            self._snapshots,
            readings=self._judged,
            from_start=self._from_start,
            has_learned=self._course.gained > LEARNED,
            course=self._course,
        )

    def _answer(self, alerts: list[Alert], step: _Step, loss: float) -> list[Intervention]:
        if self.prescription is None:
            return []
        reading = step.incoming.reading
        scene = step.handle.scene = self._scene(step)
        interventions = self.prescription.follow(reading, self.active, self._course, step.handle, self._is_near)
        for alert in alerts:
            if scene.began_anew is None and (made := self.prescription.answer(alert, step.handle, loss)) is not None:
                interventions.append(made)
        self._latest |= {(made.alert_kind, made.remedy): made for made in interventions}
        self.record.interventions.extend(interventions)
        if scene.began_anew is not None:
            self._begin_anew(scene.began_anew, reading.step)
        return interventions

    def _begin_anew(self, whence: str | Mapping[str, Any], number: int) -> None:
        """Let the rules judge from where the weights are now: what they have seen since is of others."""
        beside = None if isinstance(whence, str) else whence["beside"]
        states = self._blank if beside is None else beside["rules"]
        for rule, state in zip(self.rules, states, strict=False):
            rule.load_state_dict(copy.deepcopy(state))
        self._course = LossCourse()
        if beside is not None:
            self._course.load_state_dict(copy.deepcopy(beside["course"]))
        else:
            self._first_cause = None
            self.gauge.motion.readings = 0
        if isinstance(whence, str):
            if self._follower is not None:
                self._follower.begin_anew()
            if self._snapshots is not None:
                self._snapshots.begin(number)
        self.record.active[self.index] = self.active

    def _keep_a_snapshot(self, reading: Reading, alerts: list[Alert], is_near: bool) -> None:
        if self._snapshots is None:
            return
        is_calm = reading.is_finite and not alerts and not self.active and not is_near
        beside = {"rules": [rule.state_dict() for rule in self.rules], "course": self._course.state_dict()}
        self._snapshots.note(reading.step, is_calm, beside)
        if self._judged > 200 and self._course.gained > LEARNED:
            self._snapshots.forget_first()

    def _act(self, step: _Step) -> None:
        """Let the remedies act on the step, and send home what came of it."""
        if self.prescription is None:
            return
        if step.on_device and self.prescription.skips_nonfinite:
            # Before any alert: by the time of the judgement the weights would be lost.
            step.acted["nonfinite", SkipStep.__name__] = step.handle.skip_if_nonfinite()
        step.acted |= self.prescription.act(step.handle)
        step.handle.commit()
        if step.handle.is_skipped:
            self.gauge.motion.void_step()
        if self._buffers is not None:
            bad = step.acted.get(("nonfinite", SkipStep.__name__), False)
            self._buffers.settle(
                bad if step.on_device else step.handle.is_skipped and not step.incoming.reading.is_finite
            )
        told = [did.double() if isinstance(did, Tensor) else did for did in step.acted.values()]
        on_device = [did for did in told if isinstance(did, Tensor)]
        step.results = Transfer([step.handle.norm_on_device, *on_device])

    def _count_acts(self, step: _Step, reading: Reading) -> float:
        """Count the steps in which each intervention has acted; return the norm after all of them."""
        if step.results is None:
            return reading.norm
        norm, *arrived = (float(number[0]) for number in step.results.wait())
        waiting = iter(arrived)
        for key, did in step.acted.items():
            acted = next(waiting) if isinstance(did, Tensor) else did
            if acted and key in self._latest:
                self._latest[key].detail["steps"] += 1
        return norm

    def _diagnosed(self, alert: Alert, step: _Step) -> Alert:
        if self._follower is None:
            return alert
        incoming = step.incoming
        return self._follower.look_into(
            alert, incoming.reading, self.optimizer, incoming.plan.rates, step.batch, is_late=step.on_device
        )

    def _is_news(self, alert: Alert) -> bool:
        """False for a vanishing gradient that an explosion has left behind: the first cause is the one to report."""
        if alert.kind == "vanishing":
            return self._first_cause is None
        self._first_cause = self._first_cause or alert.kind
        return True

    def _enter_step(self, *_: Any) -> None:
        self._evaluations = 0

    def _after_step(self, *_: Any) -> None:
        self._evaluations = None
        self.gauge.motion.after_step()
        self._release_step()

    def _release_step(self) -> None:
        if self._untaken is not None:
            self._untaken.handle.after()
            self._untaken = None

    def _take_up_motion(self) -> None:
        if self.gauge.take_up_motion():
            self._note_motion()

    def _note_motion(self) -> None:
        if self._last is not None:
            place, reading = self._last
            self.record.readings.set_update_ratios(place, self.gauge.motion.update_ratios[reading.layer_present])

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as plain numbers, strings and lists.

        The record has its own state: ask for that afterwards, since this judges the step that is still to be judged.
        """
        self.settle()
        self._take_up_motion()
        return {
            "gauge": self.gauge.state_dict(),
            "rules": [[type(rule).__name__, rule.state_dict()] for rule in self.rules],
            "prescription": self.prescription.state_dict(self._mine()) if self.prescription else None,
            "snapshots": self._snapshots.state_dict() if self._snapshots else None,
            "course": self._course.state_dict(),
            "judged": self._judged,
            "from_start": self._from_start,
            "blank": [copy.deepcopy(state) for state in self._blank],
            "follower": self._follower.state_dict() if self._follower else None,
            "lr_scale": self.learning_rate.scale,
            "seen": self.seen,
            "measured": self.measured,
            "nonfinite_steps": self.nonfinite_steps,
            "first_cause": self._first_cause,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; load the record first, its interventions are counted on.

        Raises:
            ValueError: If rules or prescription are not those it was saved with.
        """
        load_named_states(self.rules, state["rules"], "rules")
        if self.prescription and state["prescription"]:
            self.prescription.load_state_dict(state["prescription"], self._mine())
            self.learning_rate.scale = state["lr_scale"]
        self.gauge.load_state_dict(state["gauge"])
        if self._follower and state["follower"]:
            self._follower.load_state_dict(state["follower"])
        self.seen, self.measured = state["seen"], state["measured"]
        self.nonfinite_steps = state["nonfinite_steps"]
        self._first_cause = state["first_cause"]
        self._latest = {(made.alert_kind, made.remedy): made for made in self._mine()}
        if self._snapshots is not None and state["snapshots"]:
            self._snapshots.load_state_dict(state["snapshots"])
        self._course.load_state_dict(state["course"])
        self._judged, self._from_start = state["judged"], state["from_start"]
        self._blank = [dict(blank) for blank in state["blank"]]

    def _mine(self) -> list[Intervention]:
        return [made for made in self.record.interventions if made.optimizer == self.index]


def _has_stepped(state: Mapping[str, Any]) -> bool:
    return float(state.get("step", 0)) > 0 or isinstance(state.get("momentum_buffer"), Tensor)


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that Fabric or Lightning has wrapped. Others that wrap one, such as Lookahead, step themselves."""
    wrappers = ("_FabricOptimizer", "LightningOptimizer")
    if any(cls.__name__ in wrappers for cls in type(optimizer).__mro__):
        return optimizer.optimizer  # type: ignore[attr-defined, no-any-return]
    return optimizer
