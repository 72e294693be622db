"""Lightning's SpikeDetection."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm


@dataclass(frozen=True)
class SpikeDetection:
    """Alarms where Lightning's ``SpikeDetection`` would end the training, so once a run at most.

    A loss that has risen, and is away from the mean of the last 10 by twice that mean, is a spike; so is one that is
    not finite.

    References:
        Lightning 2.6, ``lightning.fabric.utilities.spike``: mode min, window 10, warm-up 1 batch, rtol 2, no atol,
        finite_only true, every batch.
    """

    window: int = 10
    warmup: int = 1
    rtol: float = 2.0
    name: str = "SpikeDetection"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Follow the loss of each batch. The mean is that of the batches before."""
        past: deque[float] = deque(maxlen=self.window)
        last = 0.0
        told = any(math.isfinite(loss) for loss in recording.losses)
        for i, (step, loss) in enumerate(zip(recording.loss_steps, recording.losses, strict=True)):
            if told and i >= self.warmup and self._is_spike(float(loss), last, past):
                return [Alarm(int(step), ANY, rule="loss")]
            past.append(float(loss))
            last = float(loss)
        return []

    def _is_spike(self, loss: float, last: float, past: deque[float]) -> bool:
        if not math.isfinite(loss):
            return True
        if loss <= last or not past:
            return False
        mean = sum(past) / len(past)
        return abs(loss - mean) >= abs(self.rtol * mean)
