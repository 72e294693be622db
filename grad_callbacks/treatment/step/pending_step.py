"""A step from its measurement to its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from grad_callbacks.events import Intervention
from grad_callbacks.measurement import Batch, DeviceTransfer, PendingReading, Reading
from grad_callbacks.treatment.step import OptimizerStep


@dataclass
class PendingStep:
    """A step from its measurement to its judgement.

    Attributes:
        incoming: Its gradients, perhaps on their way to the host.
        handle: What remedies may touch.
        lr_scale: The factor on the learning rate when it was measured.
        on_device: It is taken before it is judged.
        batch: Its batch.
        acted: For kind and name of each remedy that acted whether it changed something.
        results: The norm after all remedies and what of ``acted`` only the device knows, on their way to the host; None
            if the norm is as measured, and known on the host.
    """

    incoming: PendingReading
    handle: OptimizerStep
    lr_scale: float
    on_device: bool
    batch: Batch
    acted: dict[tuple[str, str], bool | Tensor] = field(default_factory=dict)
    results: DeviceTransfer | None = None

    @property
    def reading(self) -> Reading:
        """Its gradients before any remedy; waits for the device if they are not there yet."""
        return self.incoming.reading

    def send_results(self) -> None:
        """Start the device-to-host copy of the remedies' results, once all have acted."""
        on_device = [did.double() for did in self.acted.values() if isinstance(did, Tensor)]
        if self.on_device or on_device or self.handle.changed_norm is not None:
            self.results = DeviceTransfer([self.handle.norm_on_device, *on_device])

    def count_acts(self, latest: Mapping[tuple[str, str], Intervention]) -> float:
        """Count the step on each intervention that has acted in it; return the norm after all of them."""
        norm, *arrived = [self.reading.norm]
        if self.results is not None:
            norm, *arrived = (float(number[0]) for number in self.results.wait())
        waiting = iter(arrived)
        for key, did in self.acted.items():
            acted = next(waiting) if isinstance(did, Tensor) else did
            if acted and key in latest:
                latest[key].detail["steps"] += 1
        return norm
