"""Reading a plan: from plain values to the remedies that answer each kind of alert."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import grad_callbacks.detection.rules  # noqa: F401  # declares the built-in kinds
from grad_callbacks._utils.build import build
from grad_callbacks._utils.suggest import did_you_mean
from grad_callbacks.detection.diagnosis.finding import CAUSES
from grad_callbacks.events import KINDS, declared_kinds, kind_named
from grad_callbacks.treatment.prescription.presets import PRESETS, Plan
from grad_callbacks.treatment.remedies import REMEDIES, Remedy


def plan_named(plan: Plan | str) -> Plan:
    """Return the plan, or the preset of that name.

    Raises:
        ValueError: If there is no preset of that name, or it is no mapping.
    """
    if isinstance(plan, str):
        if plan not in PRESETS:
            presets = ", ".join(PRESETS)
            raise ValueError(f"prescription {plan!r} is unknown; presets are {presets}{did_you_mean(plan, PRESETS)}")
        return PRESETS[plan]
    if not isinstance(plan, Mapping):
        raise ValueError(f"prescription must map kinds of alert to lists of remedies, got {plan!r}")
    return plan


def read_plan(plan: Plan) -> dict[str, list[Remedy]]:
    """Make the remedies of a plan; what is written alike in several lists is one remedy.

    Returns:
        For each kind of alert, and each kind and cause that the plan names, its remedies, in order.

    Raises:
        ValueError: If a kind, a cause or a remedy is unknown, an argument is wrong, or a list has a remedy that
            supplements others and none that it could supplement.
    """
    specs = {_checked_key(key): value for key, value in plan.items()}
    if len(specs) < len(plan):
        raise ValueError(f"prescription has two lists for one kind and cause: {', '.join(map(repr, plan))}")
    lists: dict[str, list[Remedy]] = {}
    made: dict[str, Remedy] = {}
    for key in [*KINDS, *(key for key in specs if key not in KINDS)]:
        lists[key] = _read_list(key, specs.get(key) or [], made)
        _refuse_idle(key, lists[key])
    return lists


def kind_of(key: str) -> str:
    """The kind of alert that a list of a plan answers, whatever the cause."""
    return key.partition(":")[0].strip()


def with_defaults(plan: Plan, kinds: Collection[str]) -> Plan:
    """Add to a plan what rules of one's own declare as remedies for their kinds, where it has no list for a kind."""
    planned = set(map(kind_of, plan))
    added = {
        f"{kind}: {cause}" if cause else kind: list(remedies)
        for kind in kinds
        if kind not in planned
        for cause, remedies in kind_named(kind).remedies.items()
    }
    return {**plan, **added}


def refuse_unanswerable(plan: Plan, kinds: Collection[str]) -> None:
    """Raise a ValueError for remedies that answer a kind of alert that no rule raises.

    Args:
        plan: As the user wrote it.
        kinds: The kinds that the rules raise.
    """
    if "" in kinds:
        return  # a rule that does not declare what it raises
    for key, remedies in plan.items():
        if remedies and kind_of(key) not in kinds:
            raised = ", ".join(sorted(kinds)) or "none"
            raise ValueError(
                f"prescription[{key!r}] answers alerts that no rule raises; the rules raise {raised}: add a rule for "
                f"{kind_of(key)!r}, or leave these remedies out"
            )


def _checked_key(key: object) -> str:
    """A plan's key as alerts are looked up by it; a ValueError names the nearest kind or cause if it is unknown."""
    if not isinstance(key, str):
        raise ValueError(f"prescription must map kinds of alert such as 'exploding' to remedies, got the key {key!r}")
    kind, cause = kind_of(key), key.partition(":")[2].strip()
    kinds = declared_kinds()
    if kind not in kinds:
        known = ", ".join(kinds)
        raise ValueError(
            f"prescription names the unknown alert kind {key!r}; known are {known}{did_you_mean(kind, kinds)}"
        )
    causes = [*CAUSES, *kind_named(kind).remedies]
    if cause and kind in KINDS and cause not in causes:
        known = ", ".join(sorted(CAUSES))
        raise ValueError(
            f"prescription[{key!r}] names an unknown cause; known are {known}{did_you_mean(cause, causes)}"
        )
    return f"{kind}: {cause}" if cause else kind


def _read_list(key: str, specs: Any, made: dict[str, Remedy]) -> list[Remedy]:
    if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence):
        raise ValueError(f"prescription[{key!r}] must be a list of remedies, got {specs!r}")
    try:
        return [made.setdefault(repr(spec), build(spec, REMEDIES, "remedy", Remedy)) for spec in specs]
    except ValueError as error:
        raise ValueError(f"prescription[{key!r}]: {error}") from error


def _refuse_idle(key: str, remedies: Sequence[Remedy]) -> None:
    """Raise a ValueError for a list with a remedy that supplements others, if it has none to supplement."""
    supplements = [remedy for remedy in remedies if remedy.supplements]
    others = [remedy for remedy in remedies if not remedy.supplements]
    if supplements and not others:
        raise ValueError(
            f"prescription[{key!r}]: {type(supplements[0]).__name__} only supplements another remedy; add one (e.g. "
            "ClipNorm) before it"
        )
    goes_back = any(remedy.may_reach_start for remedy in others)
    renews = next((remedy for remedy in supplements if remedy.reinitializes), None)
    if renews is not None and not goes_back:
        raise ValueError(
            f"prescription[{key!r}]: {type(renews).__name__} with beside=True only supplements a remedy that may go "
            "back to the weights of the start (may_reach_start): add Rollback before it, or leave beside out"
        )
