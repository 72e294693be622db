"""Vanishing gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from grad_callbacks.alerts import Alert, Kind
from grad_callbacks.checks import at_least, fraction
from grad_callbacks.gradients import Reading
from grad_callbacks.gradients.profile import Profile, decay_per_layer, early_to_late

_SATURATING = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh")

MIN_DEPTH = 5


class Vanishing:
    """Alerts when the gradient dies out on its way back to the early layers, and these stand still.

    The size of a gradient says nothing (a loss multiplied by 1e-5 has a small one), its profile over depth
    does. Both conditions must hold for ``patience`` readings in a row:

    * shape: the early layers' gradient is below ``ratio`` of the late layers', both at the ends and along
      the fitted decay per layer, in the weights or in the error that the biases show; or the first half of
      the layers has no gradient at all (dead units);
    * motion: the early layers move by less than ``motion`` of their weights a step.

    A decay is judged from five layers with weights on (embeddings not counted), dead units from three: over
    fewer a single unlike layer looks like a decay.

    Args:
        ratio: Early over late gradient. 1e-3 is AutoTrainer's limit (Zhang et al. 2021, ICSE, sec. III).
        motion: Update ratio of the early layers. 1e-4 is TheDeepChecker's lower limit (Ben Braiek & Khomh
            2023, TOSEM): at this rate a thousand steps move a weight by a tenth at most.
        patience: Readings in a row. Zero-initialised blocks and adapters pass within a few.
    """

    kind: Kind = "vanishing"

    def __init__(self, ratio: float = 1e-3, motion: float = 1e-4, patience: int = 10) -> None:
        self.ratio = fraction("ratio", ratio)
        self.motion = fraction("motion", motion)
        self.patience = at_least("patience", patience, 1)
        self._count = 0

    @property
    def active(self) -> bool:
        """True while the conditions hold."""
        return self._count >= self.patience

    def judge(self, reading: Reading) -> Alert | None:
        """Raise a critical alert when the conditions have held for ``patience`` readings."""
        if not reading.is_finite or reading.overflow or reading.fill < 1 or reading.motion is None:
            return None
        self._count = self._count + 1 if self._is_still(reading) and self._has_vanished(reading) else 0
        return self._alert(reading) if self._count == self.patience else None

    def _has_vanished(self, reading: Reading) -> bool:
        return _is_dead(reading.profile) or self._decays(reading.profile) or self._decays(reading.error_profile)

    def _decays(self, profile: Profile) -> bool:
        if len(profile) < MIN_DEPTH or not early_to_late(profile) < self.ratio:
            return False  # the fit is dear for many layers
        return decay_per_layer(profile) ** (len(profile) - 1) < self.ratio

    def _is_still(self, reading: Reading) -> bool:
        if reading.motion is None or len(reading.profile) < 3:
            return False
        early = reading.motion[reading.profiled][: len(reading.profile) // 3]
        return bool(2 * np.count_nonzero(early < self.motion) > len(early))  # NaN, not measured yet, is not still

    def _alert(self, reading: Reading) -> Alert:
        profile, third = reading.profile, len(reading.profile) // 3
        dead = _is_dead(profile)
        # Where the weights' profile is flat the error's is the one that has decayed.
        decayed = profile if self._decays(profile) or dead else reading.error_profile
        early_motion = float(np.median(reading.motion[reading.profiled][:third]))  # type: ignore[index]  # judged above
        evidence = {
            "early_to_late": early_to_late(decayed),
            "decay_per_layer": decay_per_layer(decayed),
            "early_motion": early_motion,
            "norm": reading.norm,
            "depth": float(len(profile)),
        }
        if dead:
            message = f"{int((profile == 0).sum())} of {len(profile)} layers receive no gradient at all"
        else:
            message = (
                f"the gradient shrinks by a factor of {evidence['decay_per_layer']:.2g} per layer going back: early "
                f"layers get {evidence['early_to_late']:.1e} of the late ones' and move by {early_motion:.1e} a step"
            )
        faint = profile <= self.ratio * profile.max()
        faint[:third] = True
        names = np.array(reading.layers.names, dtype=object)[reading.profiled][faint]
        cause, advice = _diagnosis(reading, dead)
        evidence = {name: value for name, value in evidence.items() if math.isfinite(value)}
        return Alert(
            self.kind, "critical", reading.step, tuple(names), message, evidence, cause, advice, reading.optimizer
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._count = state["count"]


def _is_dead(profile: Profile) -> bool:
    return bool(profile.max() > 0 and (profile[: (len(profile) + 1) // 2] == 0).all())


def _diagnosis(reading: Reading, dead: bool) -> tuple[str, str]:
    if dead:
        return (
            "dead units: no unit of some layer is active, so nothing passes back",
            "lower the learning rate; initialise with He; use LeakyReLU or GELU instead of ReLU",
        )
    saturating = [name for name in _SATURATING if name in reading.layers.activations]
    structure = "add normalisation (batch norm) or residual connections"
    if saturating:
        return (
            f"saturating activations ({', '.join(saturating)}) over {len(reading.profile)} layers",
            f"use ReLU with He initialisation; {structure}; initialise with larger weights",
        )
    return (
        f"weights too small for their fan-in over {len(reading.profile)} layers without normalisation or skips",
        f"initialise with He (ReLU) or Xavier (tanh); {structure}",
    )
