"""Go back to earlier weights that were well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import at_least, fraction
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import QuietBlock
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState
from grad_callbacks.treatment.step.snapshots import Snapshots


@dataclass(frozen=True)
class RollbackThresholds(Thresholds):
    """The numbers of :class:`Rollback`."""

    factor: float = threshold(0.1, "factor on the learning rate", unit="1", source="not measured")
    most: int = threshold(8, "rollbacks in a run", unit="rollbacks", source="not measured")
    floor: float = threshold(1e-9, "lowest ceiling of the rate", unit="x the user's rate", source="not measured")
    soon: int = threshold(
        60,
        "readings within which a second rollback goes further back and lowers the rate in any case",
        unit="readings",
        source="not measured",
    )
    finite_readings: int = threshold(
        3,
        "finite readings since the last rollback below which another is no use: the inputs are the cause",
        unit="readings",
        source="not measured",
    )
    raised: float = threshold(
        3.0,
        "rate above which it counts as raised",
        unit="x the rate of the snapshot",
        source="not measured",
    )
    recent_rates: int = threshold(10, "latest steps whose rates are kept", unit="steps", source="not measured")
    near_loss: float = threshold(
        2.0,
        "loss up to which the curvature is still like that of the snapshot",
        unit="x the batch's loss before the last step",
        source="not measured",
    )
    quiet: int = threshold(
        20, "well readings in a row after which a ceiling begins to rise", unit="readings", source="not measured"
    )
    tenfold: int = threshold(
        50, "further readings in which a ceiling rises tenfold", unit="readings", source="not measured"
    )
    highest_ceiling: float = threshold(
        0.5, "highest ceiling, whatever helps", unit="x the rate that was too high", source="not measured"
    )
    early: int = threshold(
        100,
        "readings up to which a run may begin again where nobody knows since when it was wrong",
        unit="readings",
        source="as in ProbeThresholds.initialisation_matters",
    )
    first_stride: float = threshold(
        0.03, "first step that suits most networks", unit="share of the weights' norm", source="not measured"
    )


LIMITS = RollbackThresholds()

_NOT_THE_RATE = ("bad batch", "undefined operation", "16-bit overflow")


class Rollback(SkipNext, Remedy):
    """Restores weights, buffers and optimizer from a snapshot in memory; the batches since then are not repeated.

    Snapshots are taken every 25 readings while all is well, and trusted once 10 such readings have followed; the one
    from before the first step is kept too until the run has learned something. The data go on, so that the batches that
    led to the alert are not seen again. A rate too high would lead there again, so it gets a ceiling: the rate at the
    time of the snapshot if it was raised since, else ``factor`` times the present one. Such a ceiling rises while the
    run is well, to the rate at which the diagnosis saw the batch's loss fall, at most half of the one that was too
    high; if that is still too much, the next rollback lowers it for good. If a batch is the cause the rate stays; a
    rate that has come down by itself stays too. If that is not enough, the next rollback soon after goes further back,
    and lowers the ceiling. A net whose gradient vanishes goes back as far as possible, unless a raised rate is the
    cause. Where it was measured when all was well last, as attention is, it goes back to then and keeps the rate if the
    run had been well at that rate for a snapshot longer; else the rate is to blame, and a run of up to 100 readings
    begins again. One reading behind an outlier under Adam only what the optimizer remembers goes back: its one step was
    as bounded as any, but its square would shorten those to come (SPAM resets it, Huang et al. 2025, arXiv 2501.06842).
    Where the state of RMSprop is reset, its rate rises to the ceiling while its mean of squared gradients
    fills, by Adam's correction (Kingma & Ba 2015, sec. 3).
    Reference: Chowdhery et al. 2022, "PaLM", sec. 5.1: restart from a checkpoint from before the spike, and skip the
    batches that were seen around it; Zhang et al. 2022, "OPT", sec. 2.5: and lower the rate.

    Args:
        factor: The rate is multiplied with it.
        most: Rollbacks in a run.
        floor: Lowest ceiling, as a share of the user's rate.

    Raises:
        ValueError: If ``factor`` or ``floor`` does not lie between 0 and 1, or ``most`` is no whole number of at least
            1.
    """

    changes_weights = True
    rewinds = True
    may_reach_start = True
    needs_snapshots = True

    def __init__(self, factor: float = LIMITS.factor, most: int = LIMITS.most, floor: float = LIMITS.floor) -> None:
        self.factor = fraction("factor", factor)
        self.most = at_least("most", most, 1)
        self.floor = fraction("floor", floor)
        self._multiplier = LRMultiplier()
        self._ceiling: float | None = None  # of the first group's rate
        self._lowest = self._highest = 0.0  # between these it may rise
        self._well = 0  # readings in a row
        self._rates: list[float] = []  # the latest, as the user set them
        self._done = 0
        self._last: list[int] = []  # the reading of the last rollback, and the step it went to
        self._finite = 0  # readings since then that were finite
        self._taken = math.inf  # steps since the optimizer's state was reset

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Go back now, skip the current step, and limit the rate if it may be the cause."""
        run_state, snapshots = step.run_state, step.snapshots
        if run_state is None or snapshots is None or self._done >= self.most:
            return None
        if self._last and self._finite < LIMITS.finite_readings and not step.reading.is_finite:
            return None  # nothing is finite from there either: the inputs are the cause
        if evidence.recurrence is not None:
            return None  # nothing was learned, so nothing is lost
        is_soon = bool(self._last) and run_state.readings - self._last[0] <= LIMITS.soon
        entry = snapshots.latest()
        if is_soon and entry is not None and entry["step"] <= self._last[1]:  # none was taken since
            entry = snapshots.latest(before=self._last[1]) or entry
        is_rate_cleared = False
        if evidence.well_at is not None:
            entry = snapshots.latest(before=int(evidence.well_at) + 1, trusts_all=True)
            is_rate_cleared = self._done == 0 and _was_well_at_this_rate(step, snapshots, entry)
            if not is_rate_cleared:  # what grows slowly began long before it was seen
                entry = snapshots.first if run_state.readings <= LIMITS.early else None
        if run_state.alert is not None and run_state.alert.kind == "vanishing" and not was_raised(step):
            entry = snapshots.oldest  # it vanishes without notice: the latest are of weights that were dead already
        if entry is None:
            return None
        if evidence.is_in_the_memory and not entry["first"]:  # before the first step there was nothing to remember
            snapshots.restore_memory(entry)
            return {"to_step": entry["step"], "of": "the optimizer's memory", "lr_scale": step.learning_rate.scale}
        snapshots.restore(entry)
        run_state.restarted_from = entry
        self._done += 1
        self._last = [run_state.readings, entry["step"]]
        self._finite = self._well = 0
        self.skip_next_step()
        self._taken = 0 if entry["first"] else math.inf
        if not is_rate_cleared:
            self._limit(step, run_state, entry, evidence, is_soon)
        return {"to_step": entry["step"], "lr_scale": step.learning_rate.scale} | self._later(step)

    def _later(self, step: OptimizerStep) -> dict[str, float]:
        """How far the rate's scale may rise again, if it may."""
        now, scale = step.learning_rate.clean()[0], step.learning_rate.scale
        if self._ceiling is None or not now > 0:
            return {}
        later = scale / self._multiplier.scale * min(1.0, max(self._ceiling, self._highest) / now)
        return {} if math.isclose(later, scale) else {"lr_scale_later": later}

    def _limit(
        self,
        step: OptimizerStep,
        run_state: RunState,
        entry: Mapping[str, Any],
        evidence: Evidence,
        is_soon: bool,
    ) -> None:
        cause = run_state.alert.cause if run_state.alert is not None else ""
        moved = evidence.moved or 0.0 if _is_of(step, run_state) else 0.0
        displacement = evidence.displacement or 0.0
        now, before = step.learning_rate.clean()[0], entry["rate"]
        if not now > 0:  # unknown, or none
            return
        limit = now if self._ceiling is None else min(now, self._ceiling)
        highest = 0.0
        is_raised = not entry["first"] and before > 0 and limit > LIMITS.raised * before
        if cause in _NOT_THE_RATE and not is_soon and not is_raised:
            return
        if max(self._rates, default=now) > LIMITS.raised * now and not is_soon:
            pass  # it was raised for some steps, and has come down again
        elif is_raised:
            limit = before
        elif cause == "targets or loss too large" and displacement > LIMITS.first_stride / self.factor:
            limit *= LIMITS.first_stride / displacement
        elif moved > LIMITS.first_stride / self.factor:  # by an adaptive optimizer's first steps
            # The farthest was mostly the very first one: it gives the rate for later ones, if they are shorter.
            limit *= min(1.0, LIMITS.first_stride / moved / _share_of_length(step, 1 if entry["first"] else math.inf))
        elif self._ceiling is None:
            share = _share_that_helps(evidence)
            may_rise = evidence.well_at is None  # else the rate itself was never shown to be well
            highest = limit * min(share, LIMITS.highest_ceiling) if may_rise else 0.0
            limit *= min(self.factor, share)
        elif limit > self._lowest > 0:
            limit = self._lowest  # from where it has risen: there all was well
        else:
            limit *= self.factor**0.5  # by smaller steps from there
        self._ceiling = self._lowest = max(limit, self.floor * now)
        self._highest = highest
        self._keep_below(step)

    def act(self, step: OptimizerStep) -> bool:
        """Keep the rate below its ceiling; skip the first step after going back: its gradients are of other weights."""
        self._rates = [*self._rates, step.learning_rate.clean()[0]][-LIMITS.recent_rates :]
        if self._ceiling is not None and self._ceiling < self._highest and self._well > LIMITS.quiet:
            self._ceiling = min(self._highest, self._ceiling * 10 ** (1 / LIMITS.tenfold))
        self._keep_below(step)
        if self._skips(step):
            return True
        self._taken += 1
        return self._multiplier.scale < 1.0

    def note(self, step: OptimizerStep, is_well: bool) -> None:
        """Note whether a reading was finite, and whether the run is well."""
        self._finite += step.reading.is_finite
        self._well = self._well + 1 if is_well else 0

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if self._multiplier.scale == 1.0 and self._ceiling is None and not self._skip_next else 0

    def take_in(self, block: QuietBlock, is_left_out: bool) -> None:
        """Note that all readings were finite and the run was well, and the rates."""
        self._finite += len(block)
        self._well += len(block)
        if not is_left_out:
            self._rates = [*self._rates, *(plan.rates[0] for plan in block.plans)][-LIMITS.recent_rates :]
            self._taken += len(block)

    def _keep_below(self, step: OptimizerStep) -> None:
        now = step.learning_rate.clean()[0]
        if self._ceiling is not None and now > 0:
            scale = min(1.0, self._ceiling * _share_of_length(step, self._taken + 1) / now)
            if scale != self._multiplier.scale:
                self._multiplier.set(step.learning_rate, scale)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists; the snapshots are the engine's."""
        return {
            "cut": self._multiplier.state_dict(),
            "ceiling": [self._ceiling, self._lowest, self._highest],
            "well": self._well,
            "rates": list(self._rates),
            "done": self._done,
            "last": list(self._last),
            "finite": self._finite,
            "skip_next": self._skip_next,
            "taken": self._taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._multiplier.load_state_dict(state["cut"])
        self._ceiling, self._lowest, self._highest = state["ceiling"]
        self._well, self._rates = state["well"], list(state["rates"])
        self._done, self._last, self._skip_next = state["done"], list(state["last"]), state["skip_next"]
        self._finite, self._taken = state["finite"], state["taken"]


def was_raised(step: OptimizerStep) -> bool:
    """True if the rate is far above the one of the latest snapshot."""
    entry = step.snapshots.latest() if step.snapshots is not None else None
    if entry is None or entry["first"]:
        return False
    return bool(step.learning_rate.effective()[0] > LIMITS.raised * entry["rate"] > 0)


def _was_well_at_this_rate(step: OptimizerStep, snapshots: Snapshots, entry: Mapping[str, Any] | None) -> bool:
    """True if the run was well from one snapshot to a later one, both at the present rate or a higher one."""
    if entry is None:
        return False
    before = snapshots.latest(before=entry["step"])
    now = step.learning_rate.clean()[0]
    return before is not None and not before["first"] and min(before["rate"], entry["rate"]) >= now > 0


def _is_of(step: OptimizerStep, run_state: RunState) -> bool:
    """True if the alert is this step's own, not an earlier one whose remedy was not enough."""
    return run_state.alert is not None and run_state.alert.step == step.reading.step


def _share_of_length(step: OptimizerStep, taken: float) -> float:
    """Share of the present rate at which RMSprop's step after so many others is as long as later on; 1 elsewhere."""
    return math.sqrt(1 - step.plan.slowness**taken)


def _share_that_helps(evidence: Evidence) -> float:
    """Share of the rate at which the diagnosis saw the batch's loss fall; 1 if the last step has ruined the weights."""
    ratio = math.inf if evidence.loss_ratio_of_last_step is None else evidence.loss_ratio_of_last_step
    is_near = evidence.is_of_first_reading or ratio < LIMITS.near_loss
    return 1.0 if evidence.rate_that_helps is None or not is_near else evidence.rate_that_helps
