"""What a prescription remembers: the interventions under observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grad_callbacks.events import Intervention
from grad_callbacks.measurement import Reading
from grad_callbacks.treatment.prescription.treatment import Treatment
from grad_callbacks.treatment.remedies import Remedy


@dataclass
class PrescriptionState:
    """What a prescription remembers between steps.

    Attributes:
        answers: The kind of alert that each remedy, by its first place in the lists, was last switched on for.
        treatments: Interventions under observation, in order.
        nonfinite: Non-finite readings in a row.
    """

    answers: dict[str, str] = field(default_factory=dict)
    treatments: list[Treatment] = field(default_factory=list)
    nonfinite: int = 0

    def count(self, reading: Reading) -> None:
        """Count non-finite readings in a row."""
        self.nonfinite = 0 if reading.is_finite or reading.overflow else self.nonfinite + 1

    def supersede(self, kind: str) -> None:
        """Close earlier treatments of a kind: what is switched on in their place is observed from now on."""
        for earlier in self.treatments:
            if earlier.made.alert_kind == kind:
                earlier.watches_the_loss = False  # the latest does: each would lower the rate again
                if earlier.is_open:
                    earlier.is_open = False
                    earlier.made.detail.setdefault("outcome", "no change")

    def state_dict(self, made: Sequence[Intervention]) -> dict[str, Any]:
        """Return plain data.

        Args:
            made: The record's interventions, in which treatments are referred to.
        """
        places = {id(intervention): place for place, intervention in enumerate(made)}
        return {
            "(answers)": dict(self.answers),
            "(treatments)": [t.state_dict(places[id(t.made)]) for t in self.treatments if id(t.made) in places],
            "(nonfinite)": self.nonfinite,
        }

    def load_state_dict(
        self, state: Mapping[str, Any], made: Sequence[Intervention], lists: Mapping[str, Sequence[Remedy]]
    ) -> None:
        """Continue from :meth:`state_dict`; treatments from lists that the plan no longer has are no longer followed.

        Args:
            state: The state.
            made: The record's interventions.
            lists: The remedies of the plan.
        """
        self.answers = dict(state["(answers)"])
        self.treatments = [
            Treatment.of(saved, made[saved["made"]], lists[saved["key"]][saved["place"]])
            for saved in state["(treatments)"]
            if saved["made"] < len(made) and saved["place"] < len(lists.get(saved["key"], ()))
        ]
        self.nonfinite = state["(nonfinite)"]
