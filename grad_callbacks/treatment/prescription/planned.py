"""The remedies of a plan: all together, each behind the barrier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from grad_callbacks._utils.barrier import Barrier, log
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import QuietBlock
from grad_callbacks.measurement.sharding import is_first_process
from grad_callbacks.treatment.prescription.parsing import kind_of
from grad_callbacks.treatment.remedies import Remedy
from grad_callbacks.treatment.step import OptimizerStep

T = TypeVar("T")


class _InTurn(NamedTuple):
    key: str  # its first place in the lists
    kind: str  # of the alerts that its list answers
    name: str
    remedy: Remedy
    notes: bool  # it has a ``note`` of its own
    prepares: bool  # it has a ``before_backward`` of its own
    takes_in: bool  # it has a ``take_in`` of its own
    may_wait: bool  # it may say that it is idle

    @classmethod
    def of(cls, key: str, remedy: Remedy) -> _InTurn:
        own = type(remedy)
        notes, prepares = own.note is not Remedy.note, own.before_backward is not Remedy.before_backward
        takes_in = own.take_in is not Remedy.take_in
        kind = kind_of(key.rpartition("#")[0])
        return cls(key, kind, own.__name__, remedy, notes, prepares, takes_in, remedy.may_wait)


class PlannedRemedies:
    """The remedies of a plan.

    One that raises an error is left out from then on, and its hooks are taken away.

    Args:
        lists: For each kind of alert, or kind and cause, its remedies, in order.

    Attributes:
        lists: As given.
        left_out: Traits; remedies that have one of them are passed over.
        barrier: Leaves out what has failed.
    """

    def __init__(self, lists: dict[str, list[Remedy]]) -> None:
        self.lists = lists
        self._in_turn: list[_InTurn] | None = None
        self.left_out: tuple[str, ...] = ()
        self.barrier = Barrier()

    @property
    def lists(self) -> dict[str, list[Remedy]]:
        """For each kind of alert, or kind and cause, its remedies, in order; to be replaced, not changed."""
        return self._lists

    @lists.setter
    def lists(self, lists: dict[str, list[Remedy]]) -> None:
        self._lists, self._in_turn = lists, None

    def leave_out(self, *traits: str, why: str) -> None:
        """Pass over remedies with one of these traits from now on, and log it if the plan has any.

        Raises:
            ValueError: If remedies have no such trait.
        """
        unknown = [trait for trait in traits if trait not in Remedy.__annotations__]
        if unknown:
            raise ValueError(f"remedies have no trait {unknown[0]!r}; known are {', '.join(Remedy.__annotations__)}")
        self.left_out += traits
        planned = {type(remedy).__name__ for _, remedy in self.each() if _has_any(remedy, traits)}
        if planned and is_first_process():
            log.warning("left out of the remedies: %s (%s)", ", ".join(sorted(planned)), why)

    def is_left_out(self, remedy: Remedy) -> bool:
        """True for a remedy that is passed over."""
        return bool(self.left_out) and _has_any(remedy, self.left_out)

    def each(self) -> Iterator[tuple[str, Remedy]]:
        """Each remedy once, with its first place in the lists, such as ``"exploding#0"``."""
        seen: set[int] = set()
        for key, remedies in self.lists.items():
            for place, remedy in enumerate(remedies):
                if id(remedy) not in seen:
                    seen.add(id(remedy))
                    yield f"{key}#{place}", remedy

    def of_kind(self, kind: str) -> list[Remedy]:
        """All remedies that may answer a kind of alert, whatever its cause."""
        return [remedy for key, remedies in self.lists.items() if kind_of(key) == kind for remedy in remedies]

    def key_of(self, wanted: Remedy) -> str:
        """The first place of a remedy in the lists."""
        return next(key for key, remedy in self.each() if remedy is wanted)

    def others(self, key: str) -> list[tuple[str, int]]:
        """Key and place of each remedy that is not in the list at ``key``, and not left out."""
        mine = set(map(id, self.lists.get(key, [])))
        places = [(first.rpartition("#"), remedy) for first, remedy in self.each()]
        return [
            (where, int(place))
            for (where, _, place), remedy in places
            if id(remedy) not in mine and not self.is_left_out(remedy)
        ]

    def attach(self, model: nn.Module) -> None:
        """Put the hooks in place of the remedies that need some in the model."""
        for _, remedy in self.each():
            self._call(remedy, remedy.attach, model, default=None)

    def detach(self) -> None:
        """Take all hooks of remedies away."""
        for _, remedy in self.each():
            self._call(remedy, remedy.detach, default=None)

    def before_backward(self, loss: Tensor) -> None:
        """Let the remedies that work in the backward pass prepare for that of ``loss``."""
        for turn in self._turns():
            if turn.prepares and not self.is_left_out(turn.remedy):
                self._call(turn.remedy, turn.remedy.before_backward, loss, default=None)

    def note(self, step: OptimizerStep, is_well: bool) -> None:
        """Show the remedies a step that has been judged."""
        for turn in self._turns():
            if turn.notes:
                self._call(turn.remedy, turn.remedy.note, step, is_well, default=None)

    def engage(self, remedy: Remedy, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Switch a remedy on; None if it has nothing more to give, or fails."""
        return self._call(remedy, _engage, remedy, step, evidence, default=None)

    def release(self, remedy: Remedy, step: OptimizerStep) -> bool:
        """Switch a remedy off, and return whether that changed anything."""
        return self._call(remedy, remedy.release, step, default=False)

    def act(self, step: OptimizerStep, answers: Mapping[str, str]) -> dict[tuple[str, str], bool | Tensor]:
        """Let every remedy that is on act on ``step``.

        Args:
            step: The step.
            answers: The kind of alert that each remedy, by its first place in the lists, was last switched on for.

        Returns:
            For kind and name of each remedy whether it changed something, as it reports itself.
        """
        acted: dict[tuple[str, str], bool | Tensor] = {}
        for key, kind, name, remedy, *_ in self._turns():
            if not step.is_skipped and not self.is_left_out(remedy):
                did = self._act(remedy, step)
                if did is not False:
                    who = answers.get(key, kind), name
                    acted[who] = did | acted.get(who, False)
        return acted

    def idle_for(self, readings: int) -> int:
        """Return for how many readings of a run in which all is well no remedy needs to see the step.

        Args:
            readings: Readings so far.
        """
        if self.barrier.failed or not all(turn.may_wait for turn in self._turns()):
            return 0
        return min((turn.remedy.idle_for(readings) for turn in self._turns()), default=LEEWAY.any)

    def take_in(self, block: QuietBlock) -> None:
        """Show the remedies readings of steps that none of them needed to see."""
        for turn in self._turns():
            if turn.takes_in:
                self._call(turn.remedy, turn.remedy.take_in, block, self.is_left_out(turn.remedy), default=None)

    def states(self) -> dict[str, list[list[Any]]]:
        """Name and state of every remedy, in the plan's order; None for one that was left out."""
        return {
            key: [[type(remedy).__name__, self._call(remedy, _state, remedy, default=None)] for remedy in remedies]
            for key, remedies in self.lists.items()
        }

    def _turns(self) -> list[_InTurn]:
        """All remedies in the order in which they act.

        What supplements others follows them, and steps of other lengths come last: they may have to wait for the
        weights that others have changed.
        """
        if self._in_turn is None:
            turns = sorted(self.each(), key=lambda e: (e[1].sets_step_size, e[1].supplements))
            self._in_turn = [_InTurn.of(key, remedy) for key, remedy in turns]
        return self._in_turn

    def _act(self, remedy: Remedy, step: OptimizerStep) -> bool | Tensor:
        failed = self.barrier.failed
        before = step.changed_norm, step.is_skipped, step.learning_rate.scale
        nothing: bool | Tensor = False
        did = self.barrier.call(remedy, _act, remedy, step, default=nothing)
        if self.barrier.failed > failed:
            self._detach(remedy)
            norm, is_skipped, scale = before
            is_same = step.changed_norm is norm and step.is_skipped == is_skipped
            if not is_same or step.learning_rate.scale != scale:
                log.error("%s had already changed this step when it failed; that stays", type(remedy).__name__)
        return did

    def _call(self, remedy: Remedy, action: Callable[..., T], *arguments: Any, default: T) -> T:
        failed = self.barrier.failed
        result = self.barrier.call(remedy, action, *arguments, default=default)
        if self.barrier.failed > failed and action != remedy.detach:
            self._detach(remedy)
        return result

    @staticmethod
    def _detach(remedy: Remedy) -> None:
        with suppress(Exception):
            remedy.detach()


def _has_any(remedy: Remedy, traits: tuple[str, ...]) -> bool:
    return any(getattr(remedy, trait) for trait in traits)


def _engage(remedy: Remedy, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
    detail = remedy.engage(step, evidence)
    return None if detail is None else {**_plain(detail), "steps": 0}


def _act(remedy: Remedy, step: OptimizerStep) -> bool | Tensor:
    did = remedy.act(step)
    if not isinstance(did, Tensor):
        return bool(did)
    if did.numel() != 1:
        raise TypeError(f"act must return whether anything was changed, got a tensor of shape {tuple(did.shape)}")
    return did if did.dtype == torch.bool else did != 0


def _state(remedy: Remedy) -> dict[str, Any] | None:
    return remedy.state_dict()


def _plain(value: Any) -> Any:
    """A value that any checkpoint and table can hold: itself, or what it is printed as."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
