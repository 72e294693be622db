"""What all faults have in common: when they are there."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer


class Fault(Callback):
    """Breaks a run from a given step on.

    Args:
        step: The first optimizer step with the fault, from 0.
        steps: How many steps it lasts; None: to the end of the run.
    """

    def __init__(self, step: int, steps: int | None = 1) -> None:
        for name, value, least in (("step", step, 0), ("steps", 1 if steps is None else steps, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        self.step = step
        self.steps = steps

    def active(self, trainer: Trainer) -> bool:
        """Tell whether the coming optimizer step has the fault."""
        return self.step <= trainer.global_step and not self.over(trainer)

    def over(self, trainer: Trainer) -> bool:
        """Tell whether the fault has been and gone."""
        return self.steps is not None and trainer.global_step >= self.step + self.steps
