"""Reading a plan: from plain values to the remedies that answer each kind of alert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grad_callbacks._utils.build import build
from grad_callbacks.events import KINDS
from grad_callbacks.treatment.prescription.presets import PRESETS, Plan
from grad_callbacks.treatment.remedies import REMEDIES, Reinitialize, Remedy, RescaleInputs, Rollback

GO_BACK = (Rollback, RescaleInputs)  # perhaps to the weights of the start


def read_plan(plan: Plan | str) -> dict[str, list[Remedy]]:
    """Make the remedies of a plan, or of a preset by its name; what is written alike in several lists is one remedy.

    Returns:
        For each kind of alert, and each kind and cause that the plan names, its remedies, in order.

    Raises:
        ValueError: If a preset, a kind or a remedy is unknown, an argument is wrong, or a list has a remedy that
            stands beside others and none that it could stand beside.
    """
    if isinstance(plan, str):
        if plan not in PRESETS:
            raise ValueError(f"prescription {plan!r} is unknown; presets are {', '.join(PRESETS)}")
        plan = PRESETS[plan]
    if not isinstance(plan, Mapping):
        raise ValueError(f"prescription must map kinds of alert to lists of remedies, got {plan!r}")
    unknown = [key for key in plan if kind_of(key) not in KINDS]
    if unknown:
        raise ValueError(f"prescription names the unknown alert kind {unknown[0]!r}; known are {', '.join(KINDS)}")
    remedies: dict[str, list[Remedy]] = {}
    made: dict[str, Remedy] = {}
    for key in [*KINDS, *(key for key in plan if key not in KINDS)]:
        specs = plan.get(key) or []
        if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence):
            raise ValueError(f"prescription[{key!r}] must be a list of remedies, got {specs!r}")
        remedies[key] = [made.setdefault(repr(s), build(s, REMEDIES, "remedy", Remedy)) for s in specs]
        _refuse_idle(key, remedies[key])
    return remedies


def kind_of(key: str) -> str:
    """The kind of alert that a list of a plan answers, whatever the cause."""
    return key.partition(":")[0].strip()


def proves_itself(remedy: Remedy) -> bool:
    """True for a remedy that is switched on only where it has seen what is wrong; such stand first in a list."""
    return bool(getattr(remedy, "proves_itself", False))


def supports(remedy: Remedy) -> bool:
    """True for a remedy that is switched on beside another one of its list, never in its turn."""
    return bool(getattr(remedy, "supports", False))


def _refuse_idle(key: str, remedies: Sequence[Remedy]) -> None:
    """Raise a ValueError for a list with a remedy that stands beside others, if it has none to stand beside."""
    beside = [remedy for remedy in remedies if remedy.supplements]
    others = [remedy for remedy in remedies if not remedy.supplements]
    if beside and not others:
        raise ValueError(
            f"prescription[{key!r}] has nothing that {type(beside[0]).__name__} could stand beside: add a remedy "
            "that is switched on in its turn"
        )
    # A remedy of the user's own may go back to the start too.
    stays = [type(remedy) in REMEDIES.values() and not isinstance(remedy, GO_BACK) for remedy in others]
    if any(isinstance(remedy, Reinitialize) for remedy in beside) and all(stays):
        raise ValueError(
            f"prescription[{key!r}] has Reinitialize with beside=True, and nothing that goes back to the start: add "
            "Rollback, or leave beside out"
        )
