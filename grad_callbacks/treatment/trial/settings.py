"""How remedies are tried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import at_least, between


@dataclass(frozen=True)
class TrialThresholds(Thresholds):
    """The numbers that decide how remedies are tried out, and which one wins."""

    steps: int = threshold(20, "length of a trial", unit="steps", source="not measured")
    most: int = threshold(3, "trials in a run and optimizer", unit="trials", source="not measured")
    budget: int = threshold(2**28, "memory for these batches", unit="bytes", source="not measured")
    margin: float = threshold(0.05, "losses this close are equally good", unit="x best loss", source="not measured")
    held_out: int = threshold(
        4,
        "one in so many batches is not trained on and gives the score; fewer are too few for a trial",
        unit="batches",
        source="not measured",
    )


LIMITS = TrialThresholds()


@dataclass(frozen=True)
class Trial:
    """How remedies are tried out when an alert comes.

    Each remedy that the prescription has for the alert is tried for ``steps`` steps; so are none at all and a random
    one of its other remedies. These begin with the step that raised the alert. Each remedy that does not go back by
    itself is tried from the newest healthy snapshot too, if there is one. All have the same random numbers and the same
    recent batches, of which every fourth is held out: the mean loss on those decides. What is within ``margin`` of the
    best counts as equally good: none is preferred then, next what the prescription has first, and what goes back only
    after what does not. What comes to a loss that is NaN or infinite cannot win, whatever its gradients are; where all
    do, the prescription decides. A few steps flatter a low learning rate, which quiets the noise (Wu et al. 2018,
    "Understanding Short-Horizon Bias"); so none wins too if with it, after an exploding or non-finite gradient, the
    loss is no higher than it was before. Nothing of a trial stays but its result: the winner is applied to the run as
    if it had been prescribed alone, from the snapshot if that is where it has won.

    What is switched on later, because the winner has not helped, follows the prescription.

    The learning rate stays as it is during a trial, and of an accumulated gradient the last batch only is replayed; a
    trial needs memory for a second copy of weights, buffers and optimizer. None is held, and the prescription decides,
    before four batches were seen, also after a resume; without a ``training_step`` that can be replayed; where there
    are several optimizers; for sharded weights and compiled models; and for optimizers that step others, need a closure
    or cannot be copied. What fails on one replica fails on all.

    Args:
        steps: Length of a trial. As many recent batches are kept to be replayed, by reference, but at least 4.
        most: Trials in a run and optimizer: each takes as many steps as remedies are tried, times ``steps``.
        budget: Bytes of batches that are kept at most.
        margin: Share of the best loss that counts as nothing.
        from_snapshot: Try remedies from the newest healthy snapshot too, where the prescription has one that takes
            snapshots.

    Raises:
        ValueError: If an argument is wrong; the message names it.

    References:
        Jaderberg et al. 2017, "Population Based Training of Neural Networks": explore by short runs, keep the best.
    """

    steps: int = LIMITS.steps
    most: int = LIMITS.most
    budget: int = LIMITS.budget
    margin: float = LIMITS.margin
    from_snapshot: bool = True

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("most", self.most, 1)
        at_least("budget", self.budget, 1)
        between("margin", self.margin, 0, 1)

    @classmethod
    def of(cls, spec: Trial | Mapping[str, Any] | bool | None) -> Trial | None:
        """Build it from plain values: its arguments by name, True for the defaults, None or False for no trials.

        Raises:
            ValueError: If ``spec`` is none of these.
        """
        if isinstance(spec, Trial):
            return spec
        if spec is None or isinstance(spec, bool):
            return cls() if spec else None
        if not isinstance(spec, Mapping):
            raise ValueError(f"trial must be a Trial, its arguments by name, True or None, got {spec!r}")
        try:
            return cls(**spec)
        except TypeError as error:
            raise ValueError(f"trial: {error}") from error
