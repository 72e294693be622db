"""A saved state of an engine whose rules, remedies or settings have been changed since."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grad_callbacks.measurement.sharding import is_first_process
from grad_callbacks.treatment.prescription.prescription import Prescription

log = logging.getLogger("grad_callbacks")

Named = Sequence[Any]  # pairs of class name and state


@dataclass
class _Changes:
    """What differs, for one line in the log."""

    said: list[str] = field(default_factory=list)
    lost: list[tuple[str, Any]] = field(default_factory=list)  # name and state of each remedy that is gone

    def fit(self, now: Named, saved: Named, what: str) -> tuple[list[Any], dict[int, int]]:
        """Give each part of now the state that was saved for its class, or leave it as it is.

        Returns:
            The states, and the new place of each old one.
        """
        rest, states, places = dict(enumerate(saved)), [], {}
        fresh = []
        for place, (name, state) in enumerate(now):
            found = next((old for old, (other, _) in rest.items() if other == name), None)
            if found is None:
                fresh.append(name)
                states.append([name, state])
            else:
                places[found] = place
                states.append(rest.pop(found))
        told = [f"{', '.join(names)} {verb}" for names, verb in self._told(fresh, rest) if names]
        if told:
            self.said.append(f"{what}: {'; '.join(told)}")
        self.lost += [(name, state) for name, state in rest.values()]
        return states, places

    @staticmethod
    def _told(fresh: list[str], rest: Mapping[int, Any]) -> list[tuple[list[str], str]]:
        return [([name for name, _ in rest.values()], "dropped"), (fresh, "starting afresh")]

    @property
    def lost_factor(self) -> float:
        """What remedies that are gone had put on the learning rate; one that is in two lists counts once."""
        once = {(name, repr(state)): state for name, state in self.lost}
        return math.prod(factor for state in once.values() for factor in _factors(state))


def refitted(
    state: Mapping[str, Any], rules: Named, prescription: Prescription | None, every_n_steps: int
) -> Mapping[str, Any]:
    """Return a saved state as one of the rules and remedies of now; what does not fit is dropped, and said in one line.

    Args:
        state: What an engine has saved.
        rules: Name and state of each rule of now.
        prescription: That of now.
        every_n_steps: That of now.
    """
    changes = _Changes()
    if (before := state.get("every_n_steps", every_n_steps)) != every_n_steps:
        changes.said.append(f"every_n_steps {every_n_steps}, was {before}")
    fitted = {**state, "rules": changes.fit(rules, state["rules"], "rules")[0]}
    fitted["blank"] = _aligned(state["blank"], state["rules"], rules)
    changes.lost.clear()
    if prescription is not None and state["prescription"]:
        fitted["prescription"] = _refitted_plan(state["prescription"], prescription.state_dict(), changes)
        fitted["lr_scale"] = _rounded(state["lr_scale"] / changes.lost_factor)
    elif state["prescription"]:
        changes.said.append("no prescription any more: all remedies dropped")
    if changes.said and is_first_process():
        taken_back = "" if changes.lost_factor == 1 else f" (with their factor {changes.lost_factor:.3g} on the rate)"
        log.warning("Resumed with other settings than were saved: %s%s", ". ".join(changes.said), taken_back)
    return fitted


def _refitted_plan(saved: Mapping[str, Any], now: Mapping[str, Any], changes: _Changes) -> dict[str, Any]:
    fitted = {**saved}
    moved: dict[tuple[str, int], int] = {}
    for key in [key for key in now if not key.startswith("(")]:
        fitted[key], places = changes.fit(now[key], saved.get(key, []), f"remedies for {key!r}")
        moved |= {(key, old): new for old, new in places.items()}
    for key in [key for key in saved if not key.startswith("(") and key not in now]:
        changes.fit([], saved[key], f"remedies for {key!r}")
        del fitted[key]
    if "(treatments)" in saved:
        fitted["(treatments)"] = [
            {**each, "place": moved[each["key"], each["place"]]}
            for each in saved["(treatments)"]
            if (each["key"], each["place"]) in moved
        ]
    if "(answers)" in saved:
        answers = [(place, kind) for place, kind in _split(saved["(answers)"]) if place in moved]
        fitted["(answers)"] = {f"{place[0]}#{moved[place]}": kind for place, kind in answers}
    return fitted


def _split(answers: Mapping[str, str]) -> Iterator[tuple[tuple[str, int], str]]:
    for where, kind in answers.items():
        key, _, place = where.rpartition("#")
        yield (key, int(place)), kind


def _aligned(blank: Sequence[Any], saved: Named, now: Named) -> list[Any]:
    """The states that rules had before the first reading, in the order of now."""
    left = [[name, state] for (name, _), state in zip(saved, blank, strict=False)]
    return [state for _, state in _Changes().fit(now, left, "")[0]]


def _factors(state: Any) -> Iterator[float]:
    """The factors on the learning rate within a remedy's state."""
    if isinstance(state, Mapping):
        if state.keys() == {"scale", "rising"}:
            yield state["scale"]
        for value in state.values():
            yield from _factors(value)


def _rounded(scale: float) -> float:
    return 1.0 if math.isclose(scale, 1.0) else scale
