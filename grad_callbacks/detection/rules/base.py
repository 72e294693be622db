"""What a rule is."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

from grad_callbacks._utils.overriding import speaks_for
from grad_callbacks.detection.rules.leeway import NO_LEEWAY, Leeway
from grad_callbacks.events import QUIET, Alert, AlertKind, declare_kind
from grad_callbacks.measurement import QuietBlock, Reading


class Rule(ABC):
    """Judges the readings of one optimizer, one after the other.

    A rule of your own is a subclass that sets :attr:`kind` and defines :meth:`judge`; nothing needs to be registered.
    It is pure: it sees readings only, and the same readings always give the same alerts. Each optimizer gets its own
    copy. A rule that keeps anything between readings also defines :meth:`state_dict` and :meth:`load_state_dict`.

    What its kind of alert means is declared by the class attributes below; where several rules raise one kind, the
    first declaration holds.

    Attributes:
        kind: The kind of alert that it raises: one of the built-in ones or a word of your own.
        order: The kind's place in tables and legends, ascending; the built-in kinds have 10, 20 and 30.
        colour: The kind's colour in pictures.
        remedies: What a :class:`~grad_callbacks.GradientGuard` answers the kind with by default, by cause (``""`` for
            any): names or plain values as in a prescription.
        stops_learning: The loss does not come down while it lasts, so a run is repaired only once the loss has.
        is_bounded_by_clipping: Clipping keeps it from the weights, for good.
        comes_singly: Each event passes by itself and may come again: later ones do not tell that a remedy has failed.
        may_follow_another: Another kind may have left it behind: after an alert of one it is no news.
    """

    kind: ClassVar[str] = ""
    order: ClassVar[int] = 100
    colour: ClassVar[str] = "#6b7280"
    remedies: ClassVar[Mapping[str, Sequence[Any]]] = {}
    stops_learning: ClassVar[bool] = False
    is_bounded_by_clipping: ClassVar[bool] = False
    comes_singly: ClassVar[bool] = False
    may_follow_another: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.kind, str) and cls.kind:  # else set per object, or by a subclass
            _refuse_unusable(cls)
            declare_kind(
                AlertKind(
                    name=cls.kind,
                    order=cls.order,
                    colour=cls.colour,
                    remedies=cls.remedies,
                    stops_learning=cls.stops_learning,
                    is_bounded_by_clipping=cls.is_bounded_by_clipping,
                    comes_singly=cls.comes_singly,
                    may_follow_another=cls.may_follow_another,
                )
            )

    @abstractmethod
    def judge(self, reading: Reading) -> Alert | None:
        """Take in one reading and return an alert if there is something new to say."""

    def leeway(self) -> Leeway:
        """Return how far the run may go on before :meth:`judge` must see it; by default it must see each reading.

        Readings within it are taken in together, some steps later, by :meth:`take_in`.
        """
        return NO_LEEWAY

    def take_in(self, block: QuietBlock) -> None:
        """Take in readings that were within the :meth:`leeway`: the state is that of judging each of them."""
        for reading in block.readings:
            self.judge(reading)

    @property
    def may_wait(self) -> bool:
        """True if the leeway is that of this class: a subclass that judges otherwise must see each reading."""
        return speaks_for(type(self), "leeway", "judge", "take_in", "active", "near")

    def is_borne_out(self, alert: Alert, is_tried: bool) -> bool:
        """Return False to drop an alert that :meth:`judge` has returned, once its cause was looked for.

        Args:
            alert: With the cause that the diagnosis has found.
            is_tried: The diagnosis could try the batch before with the weights of now.
        """
        return True

    @property
    def active(self) -> bool:
        """True while what it looks for is still there."""
        return False

    @property
    def near(self) -> bool:
        """True when an alert may come soon: activations and the update of every step are measured then."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return all that later judgements depend on, as plain numbers, strings and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: If a subclass keeps a state and does not define this method.
        """
        if state:
            raise ValueError(f"{type(self).__name__} has a state_dict, but no load_state_dict: define both")


def _refuse_unusable(cls: type[Rule]) -> None:
    """Raise a ValueError for a kind that could not be written in a plan, a table or a picture."""
    if ":" in cls.kind or cls.kind in QUIET:
        raise ValueError(f"{cls.__name__}.kind must be a word without a colon, none of {QUIET}, got {cls.kind!r}")
    if isinstance(cls.order, bool) or not isinstance(cls.order, Real):
        raise ValueError(f"{cls.__name__}.order must be a number, got {cls.order!r}")
    if not isinstance(cls.colour, str) or not re.fullmatch("#[0-9a-f]{6}", cls.colour):
        raise ValueError(f"{cls.__name__}.colour must be written as '#rrggbb', got {cls.colour!r}")
