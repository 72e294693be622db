"""What a remedy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from grad_callbacks._utils.overriding import speaks_for
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import QuietBlock
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


class Remedy(ABC):
    """Changes training in answer to an alert.

    A remedy of your own is a subclass that defines :meth:`engage` and, if it acts on every step from then on,
    :meth:`act`; nothing needs to be registered. Each optimizer gets its own copy. All other methods have a default. One
    that keeps anything between steps also defines :meth:`state_dict` and :meth:`load_state_dict`.

    An error in one of these methods is caught; one in a hook that it puts into the model or the backward pass is not.

    The traits below tell the prescription what it may expect; they may be set per object.

    Attributes:
        clips: It bounds the gradient, so it is left out where the Trainer clips already, and where an optimizer cannot
            bear a changed gradient.
        bounds_steps: No gradient, however large, moves the weights far while it is on.
        sets_step_size: The steps it takes do not depend on the learning rate.
        takes_own_steps: At present its steps do not follow from the gradient that is read: none is foretold.
        changes_gradients: It gives the optimizer other gradients than the loss has.
        changes_weights: It writes to the weights, so an optimizer that remembers where they were cannot bear it.
        takes_bound_from_alert: Its bound was taken from the alert's numbers, so it is withdrawn once the run has gone
            back to weights from before that alert.
        rewinds: It goes back to earlier weights, and further back each time.
        may_reach_start: It may go back as far as the weights that the run began with.
        reinitializes: It draws new weights; the run is given those once only.
        begins_anew: The run starts over with it, so the loss must come down again before the run counts as repaired.
        acts_at_start: It needs no step to have been taken, so it may act before the first one.
        supplements: It is switched on beside the remedy of its list that answers the alert, each time one does, and
            never in its turn. Such remedies stand last in a list, and never alone.
        proves_itself: It is switched on only where it has seen what is wrong: a warning then goes on to the next
            remedy, and no trial is needed. Such remedies stand first in a list.
        skips_steps: It skips the step at hand, which the host must decide before the step is taken.
        skips_nonfinite: It skips every step with a non-finite gradient, which some devices can do by themselves.
        needs_snapshots: It goes back to snapshots, so some must be taken.
    """

    clips: bool = False
    bounds_steps: bool = False
    sets_step_size: bool = False
    takes_own_steps: bool = False
    changes_gradients: bool = False
    changes_weights: bool = False
    takes_bound_from_alert: bool = False
    rewinds: bool = False
    may_reach_start: bool = False
    reinitializes: bool = False
    begins_anew: bool = False
    acts_at_start: bool = False
    supplements: bool = False
    proves_itself: bool = False
    skips_steps: bool = False
    skips_nonfinite: bool = False
    needs_snapshots: bool = False

    @abstractmethod
    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Switch on, for this very step and those to come.

        Args:
            step: The step that raised the alert. On an accelerator it may have been taken already
                (:attr:`~grad_callbacks.OptimizerStep.is_taken`).
            evidence: The alert's numbers.

        Returns:
            With what it was switched on, in plain values; None if it has nothing more to give. ``steps``, ``outcome``,
            ``loss_before``, ``loss_after`` and ``withdrawn_at`` are added by the engine.
        """

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Act on a step; called for every one, also while switched off.

        Returns:
            Whether anything was changed; a scalar on the device where only the device knows it yet.
        """
        return False

    def idle_for(self, readings: int) -> int:
        """Return for how many readings of a run in which all is well :meth:`act` changes nothing.

        They are then taken in together, some steps later, by :meth:`take_in`; neither ``act`` nor :meth:`note` sees
        them. By default it sees each.

        Args:
            readings: Readings so far.
        """
        return 0

    def take_in(self, block: QuietBlock, is_left_out: bool) -> None:  # noqa: B027
        """Take in readings of steps while it was idle: the state is that of ``note`` and ``act`` for each of them.

        Args:
            block: The readings.
            is_left_out: ``act`` would not have been called.
        """

    @property
    def may_wait(self) -> bool:
        """True if what :meth:`idle_for` says holds for this class: a subclass that acts otherwise sees each step."""
        return speaks_for(type(self), "idle_for", "act", "note", "take_in")

    def release(self, step: OptimizerStep) -> bool:
        """Switch off, and return whether that changed anything.

        Called after 200 calm readings if the alert's cause passes by itself (none, a bad batch, a missing warm-up), and
        when the loss has become worse and the next remedy takes over.
        """
        return False

    def note(self, step: OptimizerStep, is_well: bool) -> None:  # noqa: B027
        """See a step that has been judged.

        Args:
            step: The step.
            is_well: Nothing is wrong, or about to be.
        """

    def before_backward(self, loss: Tensor) -> None:  # noqa: B027
        """See each loss before its backward pass."""

    def attach(self, model: nn.Module) -> None:  # noqa: B027
        """Put hooks in place, after a checkpoint was loaded."""

    def detach(self) -> None:  # noqa: B027
        """Take all hooks away, when the engine is closed."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as plain numbers, strings and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: If a subclass keeps a state and does not define this method.
        """
        if state:
            raise ValueError(f"{type(self).__name__} has a state_dict, but no load_state_dict: define both")
