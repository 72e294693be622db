"""What the rooms exchange: alerts, interventions and the results of trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

Severity = Literal["warning", "critical"]
Outcome = Literal["healthy", "repaired", "partly repaired", "unrepaired", "not measured"]
QUIET = ("healthy", "no progress", "not measured")  # verdicts on a run without an alert

KINDS = ("vanishing", "exploding", "nonfinite")  # of the built-in rules


@dataclass(frozen=True)
class AlertKind:
    """What a kind of alert means to those who know nothing of the rule that raises it.

    A rule declares it by its class attributes (see :class:`~grad_callbacks.detection.rules.base.Rule`).

    Attributes:
        name: As alerts, tags and plans call it.
        order: Its place in tables and legends, ascending.
        colour: In pictures, as ``"#rrggbb"``.
        remedies: Names or plain values of what answers it by default; by cause, ``""`` for any.
        stops_learning: The loss does not come down while it lasts, so a run is repaired only once the loss has.
        is_bounded_by_clipping: Clipping keeps it from the weights, for good.
        comes_singly: Each event passes by itself and may come again: later ones do not tell that a remedy has failed.
        may_follow_another: Another kind may have left it behind: after one of those it is no news.
    """

    name: str
    order: int = 100
    colour: str = "#6b7280"
    remedies: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    stops_learning: bool = False
    is_bounded_by_clipping: bool = False
    comes_singly: bool = False
    may_follow_another: bool = False


_KINDS: dict[str, AlertKind] = {}


def declare_kind(kind: AlertKind) -> None:
    """Make a kind known; the first declaration of a name holds."""
    _KINDS.setdefault(kind.name, kind)


def declared_kinds() -> list[str]:
    """Return the names of all kinds that were declared, in their order."""
    return sorted(_KINDS, key=lambda name: (_KINDS[name].order, name))


def kind_named(name: str) -> AlertKind:
    """Return what is known of a kind; a plain one where nothing was declared, as in a process without its rule."""
    return _KINDS.get(name) or AlertKind(name)


class Evidence(dict[str, float]):
    """The numbers behind an alert, by name.

    What others act on has a property here, None where the alert does not tell it; all else is only shown.
    """

    @property
    def reference(self) -> float | None:
        """The usual global gradient norm of the run."""
        return self.get("reference")

    @property
    def displacement(self) -> float | None:
        """How far the step would move all weights together, relative to their norm."""
        return self.get("displacement")

    @property
    def moved(self) -> float | None:
        """How far the farthest of the last steps has moved the weights, relative to their norm."""
        return self.get("moved")

    @property
    def recurrence(self) -> float | None:
        """Factor by which the error changes over the steps of a sequence, going back."""
        return self.get("recurrence")

    @property
    def readings_since_jump(self) -> float | None:
        """Readings since the norm jumped."""
        return self.get("readings_since_jump")

    @property
    def jump_loss(self) -> float | None:
        """The loss at the reading at which the norm jumped."""
        return self.get("jump_loss")

    @property
    def is_in_the_memory(self) -> bool:
        """True if so far only what the optimizer remembers was hurt: its one step was as bounded as any."""
        return self.get("shorter", 0.0) > 0 and self.readings_since_jump == 1

    @property
    def loss_ratio_of_last_step(self) -> float | None:
        """The batch's loss after the last step over that before it."""
        return self.get("loss_ratio_of_last_step")

    @property
    def step_overshoots(self) -> bool:
        """True if the step was tried on its own batch, and makes its loss larger."""
        return bool(self.get("step_overshoots"))

    @property
    def rate_that_helps(self) -> float | None:
        """Share of the learning rate at which the step lowers the batch's loss."""
        return self.get("rate_that_helps")

    @property
    def well_at(self) -> float | None:
        """The step at which what is wrong was measured last and was well; -1 if it never was."""
        return self.get("well_at")

    @property
    def is_of_first_reading(self) -> bool:
        """The alert judges the first reading of a run by itself."""
        return "first_reading" in self

    @property
    def is_of_batch(self) -> bool:
        """The batch was compared with its neighbours, and stands out."""
        return any(name.startswith("batch_") for name in self)


@dataclass(frozen=True)
class Alert:
    """One finding about the gradients of one optimizer.

    Attributes:
        kind: ``"vanishing"``, ``"exploding"``, ``"nonfinite"``, or the kind of a rule of your own.
        severity: ``"warning"`` for a single event, ``"critical"`` for a lasting or irreversible one.
        step: The step of the reading that raised it (``trainer.global_step`` under Lightning).
        layers: Names of the layers concerned, in the order the forward pass runs them.
        message: One sentence: what was seen, and against what limit.
        evidence: The numbers behind the message.
        cause: The likely cause: one of :data:`~grad_callbacks.CAUSES`, or free text of a rule of your own.
        advice: What to change, most effective first.
        optimizer: Index of the optimizer whose gradients were read.

    Raises:
        ValueError: If a field could not be shown or acted on; the message names it.
    """

    kind: str
    severity: Severity
    step: int
    layers: tuple[str, ...]
    message: str
    evidence: Evidence
    cause: str
    advice: str
    optimizer: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not self.kind:
            raise ValueError(f"an alert's kind must be a word, got {self.kind!r}")
        if self.severity not in get_args(Severity):
            raise ValueError(
                f"an alert's severity must be one of {', '.join(get_args(Severity))}, got {self.severity!r}"
            )
        for name in ("message", "cause", "advice"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"an alert's {name} must be a text, got {getattr(self, name)!r}")
        if not isinstance(self.layers, tuple | list) or not all(isinstance(name, str) for name in self.layers):
            raise ValueError(f"an alert's layers must be names of layers, got {self.layers!r}")
        if not all(isinstance(number, Real) for number in self.evidence.values()):
            raise ValueError(f"an alert's evidence must be numbers by name, got {dict(self.evidence)!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "evidence", Evidence(self.evidence))  # what was written as a plain mapping

    @property
    def is_single(self) -> bool:
        """True for an event of one batch, which has taken nothing from the weights yet."""
        is_of_batch = self.severity == "warning" and self.cause == "bad batch"
        return is_of_batch or self.evidence.is_in_the_memory or kind_named(self.kind).comes_singly

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a checkpoint or a JSON file can hold."""
        return {**asdict(self), "layers": list(self.layers), "evidence": dict(self.evidence)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Alert:
        """Rebuild an alert from :meth:`to_dict`."""
        return cls(**{**data, "layers": tuple(data["layers"])})


def leading(alerts: Sequence[Alert]) -> Alert:
    """Return the alert that tells best what was wrong: the first critical one of the first kind, or else the first.

    A single spike may be a bad batch; when it becomes critical the cause is known better.

    Args:
        alerts: In the order they were raised, at least one.
    """
    critical = (alert for alert in alerts if alert.kind == alerts[0].kind and alert.severity == "critical")
    return next(critical, alerts[0])


@dataclass(frozen=True)
class Intervention:
    """One application of a remedy.

    Attributes:
        step: The step at which the remedy was switched on; it acts in that very step.
        remedy: The remedy's name, the name of its class.
        alert_kind: The kind of alert that it answers.
        detail: With what it was applied, in plain values. ``detail["steps"]`` counts the optimizer
            steps in which it has acted since.
        optimizer: Index of the optimizer it acts on.
        clips: The remedy bounds the gradient, from this step on.
        begins_anew: The run starts over with it, so the loss must come down again.
        rewinds: The run goes on from earlier weights.
    """

    step: int
    remedy: str
    alert_kind: str
    detail: dict[str, Any]
    optimizer: int = 0
    clips: bool = False
    begins_anew: bool = False
    rewinds: bool = False

    @property
    def steps_back(self) -> int:
        """How many steps older the weights are that the run goes on from; only the optimizer's memory may be older."""
        return 0 if "of" in self.detail else max(0, self.step - int(self.detail.get("to_step", self.step)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a checkpoint or a JSON file can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Intervention:
        """Rebuild an intervention from :meth:`to_dict`."""
        return cls(**{**data, "detail": dict(data["detail"])})


NONE = "none"  # the name of the arm that applies no remedy


@dataclass(frozen=True)
class TrialResult:
    """What came of trying out remedies.

    Attributes:
        step: The step at which it was held.
        alert_kind: The kind of alert that was to be answered.
        winner: The name of what did best: a remedy's name, or ``"none"``; empty if nothing brought a finite loss.
        scores: For each arm its loss on the held-out batches after the last step; infinite if it was not finite. None
            comes first, then the prescription's remedies in their order, then the random one.
        losses: For each arm its training loss at each step.
        optimizer: Index of the optimizer.
    """

    step: int
    alert_kind: str
    winner: str
    scores: dict[str, float]
    losses: dict[str, list[float]]
    optimizer: int = 0

    @property
    def told(self) -> str:
        """The scores in words."""
        scores = self.scores.items()
        return ", ".join(
            f"{name} {score:.4g}" if math.isfinite(score) else f"{name} not finite" for name, score in scores
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a checkpoint can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialResult:
        """Rebuild a result from :meth:`to_dict`."""
        return cls(**data)
