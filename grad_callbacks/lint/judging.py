"""The rules' verdict on a run that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from grad_callbacks.detection.diagnosis.probes import PROBE_LIMITS
from grad_callbacks.detection.rules import RULES, Rule, rule_of
from grad_callbacks.detection.rules.first_step import NOT_OF_THE_START, judge_first_step
from grad_callbacks.events import Alert, kind_named
from grad_callbacks.lint.export import Export
from grad_callbacks.lint.readings import readings_of
from grad_callbacks.reporting.record import Record

FIRST_STEP = "FirstStep"  # judges the first reading by itself
IDS = (*RULES, FIRST_STEP)  # of the rules; they stay as they are


@dataclass(frozen=True)
class Finding:
    """What a rule has found.

    Attributes:
        rule: Its id.
        alert: What it says.
    """

    rule: str
    alert: Alert


@dataclass(frozen=True)
class Judgement:
    """What was found in the tables of a run.

    Attributes:
        verdict: As a run's: the kind of what was wrong, ``healthy``, ``no progress`` or ``not measured``.
        findings: In the order of their steps.
        readings: How many were judged.
        layers: How many layers they had.
        not_judged: In words.
        raised: What the run itself has raised, as rows of its table of alerts; None where it is not known.
    """

    verdict: str
    findings: list[Finding]
    readings: int
    layers: int
    not_judged: list[str] = field(default_factory=list)
    raised: list[dict[str, object]] | None = None


def judge(export: Export, mute: Sequence[str] = ()) -> Judgement:
    """Judge the tables of a run by the built-in rules.

    Args:
        export: The tables.
        mute: Ids of rules that are left out.

    Raises:
        ValueError: If there is no such rule.
    """
    muted = {_id(name) for name in mute}
    rules = {name: rule_of(name) for name in RULES if name not in muted}
    record, findings = Record(), []
    count, before, gaps, first_cause, layers = 0, None, 0, "", 0
    told_at_start = ""  # the kind that the first reading has shown, until a rule has said so, too
    for reading in readings_of(export):
        layers = len(reading.layers.names)
        record.readings.append(reading)
        record.feed(reading.loss, reading.optimizer)
        raised = _raised(rules, reading, first_cause)
        if not raised and count == 0 and reading.step == 0 and FIRST_STEP not in muted:
            alert = judge_first_step(reading)
            if alert is not None and (alert.cause not in NOT_OF_THE_START or alert.evidence.displacement is not None):
                raised, told_at_start = [Finding(FIRST_STEP, alert)], alert.kind
        elif raised and told_at_start:
            is_said_again = count < PROBE_LIMITS.initialisation_matters
            raised = [each for each in raised if not (is_said_again and each.alert.kind == told_at_start)]
            told_at_start = ""
        for finding in raised:
            if not kind_named(finding.alert.kind).may_follow_another:
                first_cause = first_cause or finding.alert.kind
            record.add(finding.alert)
            findings.append(finding)
        gaps += before is not None and reading.step > before + 1
        before, count = reading.step, count + 1
    not_judged = [*export.missing, "signal and error at the layers' outputs: not in a table"]
    if gaps:
        not_judged.append(f"the steps between: {gaps} gaps in the history, which long runs thin out")
    if muted:
        not_judged.append(f"muted: {', '.join(sorted(muted))}")
    return Judgement(record.verdict, findings, count, layers, not_judged, export.raised)


def _raised(rules: dict[str, Rule], reading: object, first_cause: str) -> list[Finding]:
    found: dict[str, Finding] = {}  # one for each kind
    for name, rule in rules.items():
        alert = rule.judge(reading)  # type: ignore[arg-type]
        if alert is None or (first_cause and kind_named(alert.kind).may_follow_another):
            continue
        if not rule.is_borne_out(alert, False):
            continue
        if alert.kind not in found or found[alert.kind].alert.severity == "warning":
            found[alert.kind] = Finding(name, alert)
    return list(found.values())


def _id(name: str) -> str:
    known = {each.lower(): each for each in IDS}
    plain = name.replace("_", "").lower()
    if plain not in known:
        raise ValueError(f"there is no rule {name!r} to mute; there are: {', '.join(IDS)}")
    return known[plain]
