"""One remedy's factor on the learning rate."""

from __future__ import annotations

from grad_callbacks.treatment.step.learning_rate import LearningRate


class LRMultiplier:
    """A factor that one remedy has put on the learning rate, and removes gradually.

    Attributes:
        scale: The factor, 1 for none.
        rising: Steps over which it goes back to 1, from the next on; 0 while it stays.
    """

    def __init__(self) -> None:
        self.scale = 1.0
        self.rising = 0

    def set(self, rate: LearningRate, scale: float) -> None:
        """Make the factor ``scale``, for the current step too."""
        rate.reduce(scale / self.scale)
        self.scale = scale

    def rise(self, rate: LearningRate) -> None:
        """Go one step back to 1, by equal factors."""
        if self.rising > 0:
            self.set(rate, self.scale ** ((self.rising - 1) / self.rising))
            self.rising -= 1

    def state_dict(self) -> dict[str, float]:
        """Return plain numbers."""
        return {"scale": self.scale, "rising": self.rising}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from :meth:`state_dict`; the learning rate has its own."""
        self.scale, self.rising = state["scale"], int(state["rising"])
