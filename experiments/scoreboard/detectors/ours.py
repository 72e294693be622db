"""The rules of this project, replayed over a recording."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.corpus import Recording, Stream
from experiments.scoreboard.detectors.base import Alarm, in_order
from grad_callbacks import Alert, Rule
from grad_callbacks._utils.build import build
from grad_callbacks.detection.diagnosis.probes import PROBE_LIMITS
from grad_callbacks.detection.rules import RULES
from grad_callbacks.detection.rules.first_step import judge_first_step

Raised = tuple[int, Alert]  # with the place of its reading


def build_rules(specs: Sequence[Any]) -> list[Rule]:
    """Return the rules that plain values describe (see :func:`grad_callbacks._utils.build.build`).

    Raises:
        ValueError: If a rule is unknown, or its arguments do not fit.
    """
    return [copy.deepcopy(build(spec, RULES, "rule", Rule)) for spec in specs]


def replay(stream: Stream, specs: Sequence[Any]) -> list[Alert]:
    """Return the alerts that rules raise on the readings of one optimizer, as the engine would let them through."""
    rules = build_rules(specs)
    return let_through([raised(stream, rule) for rule in rules], first_alert(stream), {rule.kind for rule in rules})


def raised(stream: Stream, rule: Rule) -> list[Raised]:
    """Return what one rule raises by itself, each alert with the place of its reading. It goes on with the rule."""
    found = []
    for place, reading in enumerate(stream.readings):
        alert = rule.judge(reading)
        if alert is not None and rule.is_borne_out(alert, is_tried=False):  # a recording has no batches
            found.append((place, alert))
    return found


def first_alert(stream: Stream) -> Alert | None:
    """Return what the first reading of a run shows by itself."""
    first = next(stream.readings, None)
    return judge_first_step(first) if first is not None and first.step == 0 else None


def let_through(by_rule: Sequence[Sequence[Raised]], first: Alert | None, kinds: Collection[str]) -> list[Alert]:
    """Return the alerts that the engine would let through.

    The first cause is the one to report: a vanishing gradient that an explosion has left behind is none.

    Args:
        by_rule: From :func:`raised`, in the order of the rules.
        first: From :func:`first_alert`.
        kinds: Those of the rules.
    """
    told: list[Alert] = []
    told_at_start = ""  # the kind that the first reading has shown, until a rule says it again
    in_order = sorted((entry for entries in by_rule for entry in entries), key=lambda entry: entry[0])  # is stable
    if first is not None and first.kind in kinds and not any(place == 0 for place, _ in in_order):
        told.append(first)
        told_at_start = first.kind
    for place, alert in in_order:
        if alert.kind == "vanishing" and any(other.kind != "vanishing" for other in told):
            continue
        is_news = alert.kind != told_at_start or place >= PROBE_LIMITS.initialisation_matters
        told_at_start = ""
        if is_news:
            told.append(alert)
    return told


@dataclass(frozen=True)
class Ours:
    """Our rules, with one set for each optimizer.

    The diagnosis looks at the model, which a recording does not hold: causes are those of the live alerts, and those
    of the rules alone where there was no such alert.

    Attributes:
        rules: Names or plain values; by default all built-in rules.
        name: Of the detector.
    """

    rules: tuple[Any, ...] = field(default_factory=lambda: tuple(RULES))
    name: str = "ours"

    @property
    def thresholds(self) -> dict[str, Any]:
        """The arguments of each rule."""
        return {
            f"{type(rule).__name__}.{name}": value
            for rule in build_rules(self.rules)
            for name, value in vars(rule).items()
            if not name.startswith("_") and isinstance(value, (int, float, str))
        }

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Replay the rules."""
        return in_order(
            Alarm(alert.step, (alert.kind,), _cause(alert, recording.alerts), alert.kind)
            for stream in recording.streams.values()
            for alert in replay(stream, self.rules)
        )


def _cause(alert: Alert, live: Iterable[Alert]) -> str:
    """The cause that the monitor named in the nearest alert of the same kind."""
    alike = [other for other in live if (other.kind, other.optimizer) == (alert.kind, alert.optimizer)]
    return min(alike, key=lambda other: abs(other.step - alert.step), default=alert).cause
