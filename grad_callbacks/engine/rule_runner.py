"""Judging: from a reading to alerts that name their cause."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from grad_callbacks.detection.diagnosis import RunContext
from grad_callbacks.detection.rules import Rule
from grad_callbacks.detection.rules.first_step import judge_first_step
from grad_callbacks.events import Alert
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.step.pending_step import PendingStep


class RuleRunner:
    """The rules of one optimizer, and what they have seen.

    Args:
        rules: Judge the readings, in this order.
        optimizer: Takes the steps.
        follower: Looks for the causes of alerts; None leaves it at what the rules have guessed.

    Attributes:
        rules: The rules.
        count: Readings so far.
        from_start: The run was watched from its very first step on, with an optimizer that had not stepped before.
        course: The course of the loss.
    """

    def __init__(self, rules: list[Rule], optimizer: torch.optim.Optimizer, follower: RunContext | None) -> None:
        self.rules = rules
        self.count = 0
        self.from_start = False
        self.course = LossLevel()
        self._optimizer = optimizer
        self._follower = follower
        self._blank: list[dict[str, Any]] = []  # the rules' states before the first reading
        self._first_cause: str | None = None

    @property
    def active(self) -> list[str]:
        """The kinds of trouble that were still there at the last reading."""
        return [rule.kind for rule in self.rules if rule.active]

    @property
    def is_near(self) -> bool:
        """True if the last reading was alarming, or nearly."""
        return any(getattr(rule, "near", False) for rule in self.rules)

    def open(self, is_first: bool) -> None:
        """Before the first step: note whether it is the run's first."""
        # The optimizer may have stepped before anybody counted.
        self.from_start = is_first and not any(map(_has_stepped, self._optimizer.state.values()))
        self._blank = [copy.deepcopy(rule.state_dict()) for rule in self.rules]

    def judge(self, step: PendingStep) -> list[Alert]:
        """Judge a step, and look for the cause of what is found."""
        reading = step.reading
        self.count += 1
        self.course.feed(reading.loss)
        raised = [alert for rule in self.rules if (alert := rule.judge(reading)) is not None and self._is_news(alert)]
        return [self._diagnosed(alert, step) for alert in raised]

    def look_at_the_start(self, step: PendingStep) -> Alert | None:
        """Judge the run's first reading by itself; None if there is nothing wrong with the initialisation."""
        alert = judge_first_step(step.reading)
        return None if alert is None else self._diagnosed(alert, step)

    def note(self, step: PendingStep) -> None:
        """Remember a step that has been judged, for the diagnosis of later ones."""
        if self._follower is not None:
            self._follower.note(step.reading, step.batch, step.incoming.plan.rates)
            self._follower.look_out(self.is_near)

    def close(self) -> None:
        """Let go of the model."""
        if self._follower is not None:
            self._follower.close()

    def beside(self) -> dict[str, Any]:
        """What to keep with a snapshot, so that :meth:`begin_anew` can go on from there."""
        return {"rules": [rule.state_dict() for rule in self.rules], "course": self.course.state_dict()}

    def begin_anew(self, beside: Mapping[str, Any] | None, is_fresh: bool) -> None:
        """Judge from where the weights are now: what was seen since is of others.

        Args:
            beside: What was kept with the snapshot they come from; None for the start of a run.
            is_fresh: They were initialised again.
        """
        for rule, state in zip(self.rules, self._blank if beside is None else beside["rules"], strict=False):
            rule.load_state_dict(copy.deepcopy(state))
        self.course = LossLevel()
        if beside is not None:
            self.course.load_state_dict(copy.deepcopy(beside["course"]))
        else:
            self._first_cause = None
        if is_fresh and self._follower is not None:
            self._follower.begin_anew()

    def _diagnosed(self, alert: Alert, step: PendingStep) -> Alert:
        if self._follower is None:
            return alert
        rates = step.incoming.plan.rates
        return self._follower.look_into(alert, step.reading, self._optimizer, rates, step.batch, step.on_device)

    def _is_news(self, alert: Alert) -> bool:
        """False for a vanishing gradient that an explosion has left behind: the first cause is the one to report."""
        if alert.kind == "vanishing":
            return self._first_cause is None
        self._first_cause = self._first_cause or alert.kind
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return all that later judgements depend on, but for the rules' own states."""
        return {
            "course": self.course.state_dict(),
            "judged": self.count,
            "from_start": self.from_start,
            "blank": [copy.deepcopy(state) for state in self._blank],
            "follower": self._follower.state_dict() if self._follower else None,
            "first_cause": self._first_cause,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        if self._follower and state["follower"]:
            self._follower.load_state_dict(state["follower"])
        self._first_cause = state["first_cause"]
        self.course.load_state_dict(state["course"])
        self.count, self.from_start = state["judged"], state["from_start"]
        self._blank = [dict(blank) for blank in state["blank"]]


def _has_stepped(state: Mapping[str, Any]) -> bool:
    return float(state.get("step", 0)) > 0 or isinstance(state.get("momentum_buffer"), torch.Tensor)
