"""What a remedy may touch: the optimizer step, the learning rate, snapshots."""

from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState
from grad_callbacks.treatment.step.snapshots import Snapshots

__all__ = ["OptimizerStep", "RunState", "Snapshots"]
