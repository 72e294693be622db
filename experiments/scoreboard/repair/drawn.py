"""The control: a remedy drawn by lot."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grad_callbacks import OptimizerStep, Remedy
from grad_callbacks.treatment.remedies import REMEDIES


class Drawn(Remedy):
    """Switches on at each alert one of all remedies, whatever the alert says, with its defaults.

    Which one is a hash of what is given here and of how many alerts there were: nobody chooses, and a run can be
    repeated. A remedy that has nothing more to give leaves the alert unanswered.

    Args:
        scenario: Name of the scenario.
        seed: Its seed.
        kind: The kind of alert that it answers.
    """

    needs_snapshots = True  # of a remedy that goes back

    def __init__(self, scenario: str, seed: int, kind: str) -> None:
        self._about = f"{scenario}/{seed}/{kind}"
        self._alerts = 0
        self._on: dict[str, Remedy] = {}

    def engage(self, step: OptimizerStep, evidence: Mapping[str, float]) -> dict[str, Any] | None:
        """Draw a remedy and switch it on."""
        name = draw(f"{self._about}/{self._alerts}")
        self._alerts += 1
        remedy = self._on[name] if name in self._on else REMEDIES[name]()
        detail = remedy.engage(step, evidence)
        if detail is None:
            return None
        self._on[name] = remedy
        return {"drawn": name, **detail}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Let all that were drawn act."""
        acted: bool | Tensor = False
        for remedy in self._on.values():
            if not step.is_skipped:
                acted = remedy.act(step) | acted
        return acted

    def state_dict(self) -> dict[str, Any]:
        """Return what was drawn, and its state."""
        return {"alerts": self._alerts, "on": {name: remedy.state_dict() for name, remedy in self._on.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._alerts = state["alerts"]
        self._on = {name: REMEDIES[name]() for name in state["on"]}
        for name, remedy in self._on.items():
            remedy.load_state_dict(state["on"][name])


def draw(about: str) -> str:
    """Return the name of a remedy, by the SHA-256 of ``about``."""
    names = sorted(REMEDIES)
    return names[int.from_bytes(hashlib.sha256(about.encode()).digest()[:8], "big") % len(names)]
