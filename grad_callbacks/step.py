"""A step on its way from its measurement to what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from grad_callbacks.alerts import Alert, Kind
from grad_callbacks.diagnosis import Batch
from grad_callbacks.gradients import Incoming, Reading, Transfer
from grad_callbacks.interventions import Intervention
from grad_callbacks.outlook import Outlook
from grad_callbacks.remedies import OptimizerStep
from grad_callbacks.trial import TrialResult


@dataclass
class StepUnderWay:
    """A step from its measurement to its judgement.

    Attributes:
        incoming: Its gradients, perhaps on their way to the host.
        handle: What remedies may touch.
        lr_scale: The factor on the learning rate when it was measured.
        on_device: It is taken before it is judged.
        batch: Its batch.
        acted: For kind and name of each remedy that acted whether it changed something.
        results: The norm after all remedies and what of ``acted`` only the device knows, on their way to the host.
    """

    incoming: Incoming
    handle: OptimizerStep
    lr_scale: float
    on_device: bool
    batch: Batch
    acted: dict[tuple[Kind, str], bool | Tensor] = field(default_factory=dict)
    results: Transfer | None = None

    @property
    def reading(self) -> Reading:
        """Its gradients before any remedy; waits for the device if they are not there yet."""
        return self.incoming.reading

    def send_results(self) -> None:
        """Send home what came of the remedies, once all have acted."""
        told = [did.double() if isinstance(did, Tensor) else did for did in self.acted.values()]
        on_device = [did for did in told if isinstance(did, Tensor)]
        self.results = Transfer([self.handle.norm_on_device, *on_device])

    def count_acts(self, latest: Mapping[tuple[Kind, str], Intervention]) -> float:
        """Count the step on each intervention that has acted in it; return the norm after all of them."""
        if self.results is None:
            return self.reading.norm
        norm, *arrived = (float(number[0]) for number in self.results.wait())
        waiting = iter(arrived)
        for key, did in self.acted.items():
            acted = next(waiting) if isinstance(did, Tensor) else did
            if acted and key in latest:
                latest[key].detail["steps"] += 1
        return norm

    def outlook(
        self,
        norm: float,
        alerts: list[Alert],
        interventions: list[Intervention],
        trials: tuple[TrialResult, ...],
        lr_scale: float,
        rate: float,
    ) -> Outlook:
        """Tell what happened at the step.

        Args:
            norm: The global norm after all remedies.
            alerts: What the rules said.
            interventions: What was switched on.
            trials: What was tried out before.
            lr_scale: The factor on the learning rate now, which is the step's unless it was taken before.
            rate: The first group's learning rate now, with the factor.
        """
        reading = self.reading
        clipped = min(norm, reading.clip_at) if reading.clip_at else norm
        return Outlook(
            reading=reading,
            alerts=alerts,
            interventions=interventions,
            norm_clipped=clipped,
            coefficient=clipped / reading.norm if reading.norm > 0 else 1.0,
            lr_scale=self.lr_scale if self.on_device else lr_scale,
            lr_effective=self.incoming.plan.rates[0] if self.on_device else rate,
            trials=trials,
        )
