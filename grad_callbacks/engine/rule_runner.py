"""Judging: from a reading to alerts that name their cause."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

import torch

from grad_callbacks._utils.barrier import Barrier
from grad_callbacks._utils.optimizers import has_stepped
from grad_callbacks._utils.plain_copy import plain_copy
from grad_callbacks.detection.diagnosis import RunContext
from grad_callbacks.detection.diagnosis.probes import PROBE_LIMITS
from grad_callbacks.detection.rules import RULES, Rule, rule_of
from grad_callbacks.detection.rules.first_step import judge_first_step
from grad_callbacks.detection.rules.leeway import LEEWAY, NO_LEEWAY, Leeway
from grad_callbacks.events import Alert, kind_named
from grad_callbacks.measurement import QuietBlock, Reading
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.step.pending_step import PendingStep

T = TypeVar("T")


class RuleRunner:
    """The rules of one optimizer, and what they have seen.

    A rule that raises an error is logged and left out from then on; the training goes on.

    Args:
        rules: Judge the readings, in this order.
        optimizer: Takes the steps.
        run_context: Looks for the causes of alerts; None leaves it at what the rules have guessed.

    Attributes:
        rules: The rules.
        count: Readings so far.
        from_start: The run was watched from its very first step on, with an optimizer that had not stepped before.
        loss_level: The level of the loss.
        active: The kinds of alert that were active still at the last reading.
        is_near: The last reading was alarming, or nearly.
        told_at_start: The kind of alert that the first reading has raised; empty once a rule has said so, too.
    """

    def __init__(self, rules: list[Rule], optimizer: torch.optim.Optimizer, run_context: RunContext | None) -> None:
        self.rules = rules
        self.count = 0
        self.from_start = False
        self.loss_level = LossLevel()
        self._optimizer = optimizer
        self._run_context = run_context
        self._barrier = Barrier()
        self._blank: list[dict[str, Any] | None] = []  # the rules' states before the first reading
        self._first_cause: str | None = None
        self.told_at_start = ""
        self._ask_the_rules()

    def open(self, is_first: bool) -> None:
        """Before the first step: note whether it is the run's first."""
        # The optimizer may have stepped before the engine was made.
        self.from_start = is_first and not any(map(has_stepped, self._optimizer.state.values()))
        self._blank = [state for _, state in self.states()]

    def judge(self, step: PendingStep) -> list[Alert]:
        """Judge a step, and look for the cause of what is found."""
        reading = step.reading
        self.count += 1
        self.loss_level.feed(reading.loss)
        judged = [(rule, self._call(rule, _judge, rule, reading, default=None)) for rule in self.rules]
        raised = [(rule, alert) for rule, alert in judged if alert is not None and self._is_news(alert)]
        self._ask_the_rules()
        found: dict[str, Alert] = {}  # one for each kind
        for rule, alert in raised:
            is_tried = self._run_context is not None and self._run_context.may_try(step.on_device)
            diagnosed = self._diagnosed(alert, step)
            if not self._call(rule, rule.is_borne_out, diagnosed, is_tried, default=True):
                self._forget(diagnosed)
                continue
            self._note_cause(diagnosed)
            if alert.kind not in found or found[alert.kind].severity == "warning":
                found[alert.kind] = diagnosed
        return list(found.values())

    def leeway(self) -> Leeway:
        """Return how far the run may go on before the rules must judge it again; none while anything is wrong."""
        if self.active or self.is_near or self._barrier.failed or not all(rule.may_wait for rule in self.rules):
            return NO_LEEWAY
        return reduce(Leeway.and_of, (rule.leeway() for rule in self.rules), Leeway(LEEWAY.most))

    def take_in(self, block: QuietBlock) -> None:
        """Take in readings that were within the leeway."""
        self.count += len(block)
        for loss in block.losses:
            self.loss_level.feed(loss)
        for rule in self.rules:
            self._call(rule, rule.take_in, block, default=None)
        self._ask_the_rules()
        if self._run_context is not None:
            self._run_context.take_in(block)
            self._run_context.look_out(self.is_near)

    def look_at_the_start(self, step: PendingStep, is_any: bool) -> Alert | None:
        """Judge the run's first reading by itself; None at later ones, and if the initialisation is as it should be.

        Args:
            step: The step.
            is_any: Any built-in kind is looked for; else those that the rules raise.
        """
        if self.count != 1 or not self.from_start:
            return None
        alert = judge_first_step(step.reading)
        if alert is None or not (is_any or alert.kind in {rule.kind for rule in self.rules}):
            return None
        return self._diagnosed(alert, step)

    def was_told(self, alert: Alert) -> bool:
        """True for the first alert that only says again what the first reading has shown, while that matters."""
        was_told, self.told_at_start = self.told_at_start == alert.kind, ""
        return was_told and self.count <= PROBE_LIMITS.initialisation_matters

    def note(self, step: PendingStep) -> None:
        """Remember a step that has been judged, for the diagnosis of later ones."""
        if self._run_context is not None:
            self._run_context.note(step.reading, step.batch, step.incoming.plan.rates)
            self._run_context.look_out(self.is_near)

    def close(self) -> None:
        """Let go of the model."""
        if self._run_context is not None:
            self._run_context.close()

    def states(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Name and a copy of the state of each rule, in their order; None for one that was left out."""
        return [(type(rule).__name__, self._call(rule, _state, rule, default=None)) for rule in self.rules]

    def kept_with_snapshot(self) -> dict[str, Any]:
        """What to keep with a snapshot, so that :meth:`restart` can go on from there."""
        return {"rules": [state for _, state in self.states()], "course": self.loss_level.state_dict()}

    def restart(self, kept: Mapping[str, Any] | None, is_fresh: bool) -> None:
        """Reset the rules to the restored weights; discard observations made with other weights.

        Args:
            kept: What was kept with the snapshot that the weights come from; None for the start of a run.
            is_fresh: They were initialised again.
        """
        for rule, state in zip(self.rules, self._blank if kept is None else kept["rules"], strict=False):
            if state is not None:  # of a rule that was left out
                self._call(rule, rule.load_state_dict, copy.deepcopy(state), default=None)
        self._ask_the_rules()
        self.told_at_start = ""
        self.loss_level = LossLevel()
        if kept is not None:
            self.loss_level.load_state_dict(copy.deepcopy(kept["course"]))
        else:
            self._first_cause = None
        if is_fresh and self._run_context is not None:
            self._run_context.begin_anew()

    def _diagnosed(self, alert: Alert, step: PendingStep) -> Alert:
        if self._run_context is None:
            return alert
        rates = step.incoming.plan.rates
        return self._run_context.look_into(alert, step.reading, self._optimizer, rates, step.batch, step.on_device)

    def _is_news(self, alert: Alert) -> bool:
        """False for a kind that an earlier one has left behind: the first cause is the one to report."""
        return self._first_cause is None or not kind_named(alert.kind).may_follow_another

    def _note_cause(self, alert: Alert) -> None:
        """Remember the first kind of alert that may leave another behind."""
        if not kind_named(alert.kind).may_follow_another:
            self._first_cause = self._first_cause or alert.kind

    def _forget(self, alert: Alert) -> None:
        if self._run_context is not None:
            self._run_context.forget(alert)

    def _ask_the_rules(self) -> None:
        """Ask each rule once for what it has made of the last reading."""
        nothing = (False, False)
        told = [self._barrier.call(rule, _active_and_near, rule, default=nothing) for rule in self.rules]
        self.active = [rule.kind for rule, (is_active, _) in zip(self.rules, told, strict=True) if is_active]
        self.is_near = any(is_near for _, is_near in told)

    def _call(self, rule: Rule, action: Callable[..., T], *arguments: Any, default: T) -> T:
        return self._barrier.call(rule, action, *arguments, default=default)

    def state_dict(self) -> dict[str, Any]:
        """Return all that later judgements depend on, but for the rules' own states."""
        return {
            "course": self.loss_level.state_dict(),
            "judged": self.count,
            "from_start": self.from_start,
            "blank": copy.deepcopy(self._blank),
            "follower": self._run_context.state_dict() if self._run_context else None,
            "first_cause": self._first_cause,
            "told_at_start": self.told_at_start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        if self._run_context and state["follower"]:
            self._run_context.load_state_dict(state["follower"])
        self._first_cause = state["first_cause"]
        self.told_at_start = state.get("told_at_start", "")  # an older version told nothing then
        self.loss_level.load_state_dict(state["course"])
        self.count, self.from_start = state["judged"], state["from_start"]
        self._blank = list(state["blank"])
        self._ask_the_rules()


def built_rules(specs: Sequence[Any] | None) -> list[Rule]:
    """Return an engine's own copies of rules that are given as objects, names or plain values.

    Args:
        specs: None for all built-in ones.

    Raises:
        ValueError: If one is unknown, or its arguments do not fit.
    """
    return [copy.deepcopy(rule_of(spec)) for spec in (list(RULES) if specs is None else specs)]


def _active_and_near(rule: Rule) -> tuple[bool, bool]:
    return bool(rule.active), bool(rule.near)


def _state(rule: Rule) -> dict[str, Any]:
    return plain_copy(rule.state_dict())  # type: ignore[no-any-return]


def _judge(rule: Rule, reading: Reading) -> Alert | None:
    alert = rule.judge(reading)
    if alert is not None and not isinstance(alert, Alert):
        raise TypeError(f"judge must return an Alert or None, got {alert!r}")
    return alert
