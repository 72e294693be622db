"""Go back to weights from before the trouble."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from grad_callbacks._utils.validation import at_least, fraction
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState

SOON = 60  # readings within which a second rollback goes further back and lowers the rate in any case
RAISED = 3.0  # times the rate that was well: it was raised
RECENT = 10  # steps whose rates are remembered
NEAR = 2.0  # times the loss of a batch before the last step: the curvature is still like that of the snapshot
QUIET = 20  # well readings in a row after which a ceiling begins to rise
TENFOLD = 50  # further ones in which it rises tenfold
HALF = 0.5  # of a rate that was too high: it does not rise further in any case
STRIDE = 0.03  # of the weights' norm, a first step that suits most networks

_NOT_THE_RATE = ("bad batch", "undefined operation", "16-bit overflow")


class Rollback(Remedy):
    """Puts weights, buffers and optimizer back to a snapshot in memory, and leaves the batches since then behind.

    Snapshots are taken every 25 readings while all is calm, and trusted once 10 calm readings have followed; the one
    from before the first step is there too until the run has learned something. The data go on, so that the batches
    that led to the trouble are not seen again. A rate too high would lead there again, so it gets a ceiling: the rate
    at the time of the snapshot if it was raised since, else ``factor`` times the present one. Such a ceiling rises
    while the run is well, to the rate at which the diagnosis saw the batch's loss fall, at most half of the one that
    was too high; if that is too much still, the next rollback takes it back for good. If a batch was to blame the rate
    stays; a rate that has come down by itself stays too. If that is not enough, the next rollback soon after goes
    further back, and lowers the ceiling. A net whose gradient vanishes goes back as far as it can, unless a raised
    rate has killed it. Where RMSprop begins anew, its rate rises to the ceiling while its mean of squared gradients
    fills, by Adam's correction (Kingma & Ba 2015, sec. 3).
    Reference: Chowdhery et al. 2022, "PaLM", sec. 5.1: restart from a checkpoint from before the spike, and skip the
    batches that were seen around it; Zhang et al. 2022, "OPT", sec. 2.5: and lower the rate.

    Args:
        factor: What the rate is multiplied with.
        most: Rollbacks in a run.
        floor: Share of the user's rate below which the ceiling does not go.

    Raises:
        ValueError: If ``factor`` or ``floor`` does not lie between 0 and 1, or ``most`` is no whole number of at least
            1.
    """

    changes_weights = True
    rewinds = True
    may_reach_start = True

    needs_snapshots = True

    def __init__(self, factor: float = 0.1, most: int = 8, floor: float = 1e-9) -> None:
        self.factor = fraction("factor", factor)
        self.most = at_least("most", most, 1)
        self.floor = fraction("floor", floor)
        self._cut = LRMultiplier()
        self._ceiling: float | None = None  # of the first group's rate
        self._lowest = self._highest = 0.0  # between these it may rise
        self._well = 0  # readings in a row
        self._rates: list[float] = []  # the latest, as the user set them
        self._done = 0
        self._last: list[int] = []  # the reading of the last rollback, and the step it went to
        self._finite = 0  # readings since then that were finite
        self._skip_next = False
        self._taken = math.inf  # steps since the optimizer began anew

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Go back now, skip the step at hand, and limit the rate if it may be to blame."""
        run_state = step.run_state
        if run_state is None or run_state.snapshots is None or self._done >= self.most:
            return None
        if self._last and self._finite < 3 and not step.reading.is_finite:
            return None  # nothing is finite from there either: what comes in is to blame
        if "recurrence" in evidence:
            return None  # nothing was learned, so nothing is lost
        is_soon = bool(self._last) and run_state.readings - self._last[0] <= SOON
        entry = run_state.snapshots.latest()
        if is_soon and entry is not None and entry["step"] <= self._last[1]:  # no calm has followed
            entry = run_state.snapshots.latest(before=self._last[1]) or entry
        if run_state.alert is not None and run_state.alert.kind == "vanishing" and not was_raised(step):
            entry = run_state.snapshots.oldest  # it dies quietly: the latest are of weights that were dead already
        if entry is None:
            return None
        run_state.snapshots.restore(entry)
        run_state.restarted_from = entry
        self._done += 1
        self._last = [run_state.readings, entry["step"]]
        self._finite = self._well = 0
        self._skip_next = True
        self._taken = 0 if entry["first"] else math.inf
        self._limit(step, run_state, entry, evidence, is_soon)
        return {"to_step": entry["step"], "lr_scale": step.learning_rate.scale} | self._later(step)

    def _later(self, step: OptimizerStep) -> dict[str, float]:
        """How far the rate's scale may rise again, if it may."""
        now, scale = step.learning_rate.clean()[0], step.learning_rate.scale
        if self._ceiling is None or not now > 0:
            return {}
        later = scale / self._cut.scale * min(1.0, max(self._ceiling, self._highest) / now)
        return {} if math.isclose(later, scale) else {"lr_scale_later": later}

    def _limit(
        self,
        step: OptimizerStep,
        run_state: RunState,
        entry: Mapping[str, Any],
        evidence: Mapping[str, float],
        is_soon: bool,
    ) -> None:
        cause = run_state.alert.cause if run_state.alert is not None else ""
        moved = evidence.get("moved", 0.0) if _is_of(step, run_state) else 0.0
        now, before = step.learning_rate.clean()[0], entry["rate"]
        if not now > 0:  # unknown, or none
            return
        limit = now if self._ceiling is None else min(now, self._ceiling)
        highest = 0.0
        was_raised = not entry["first"] and before > 0 and limit > RAISED * before
        if cause in _NOT_THE_RATE and not is_soon and not was_raised:
            return
        if max(self._rates, default=now) > RAISED * now and not is_soon:
            pass  # it was raised for some steps, and has come down again
        elif was_raised:
            limit = before
        elif cause == "targets or loss too large" and evidence.get("displacement", 0.0) > STRIDE / self.factor:
            limit *= STRIDE / evidence["displacement"]
        elif moved > STRIDE / self.factor:  # what an adaptive optimizer's first steps have done
            # The farthest was mostly the very first one: that tells the rate for later ones, if they are shorter.
            limit *= min(1.0, STRIDE / moved / _share_of_length(step, 1 if entry["first"] else math.inf))
        elif self._ceiling is None:
            share = _share_that_helps(evidence)
            highest, limit = limit * min(share, HALF), limit * min(self.factor, share)
        elif limit > self._lowest > 0:
            limit = self._lowest  # from where it has risen: there all was well
        else:
            limit *= self.factor**0.5  # by smaller steps from there
        self._ceiling = self._lowest = max(limit, self.floor * now)
        self._highest = highest
        self._keep_below(step)

    def act(self, step: OptimizerStep) -> bool:
        """Keep the rate below its ceiling; skip the first step after going back: its gradients are of other weights."""
        self._rates = [*self._rates, step.learning_rate.clean()[0]][-RECENT:]
        if self._ceiling is not None and self._ceiling < self._highest and self._well > QUIET:
            self._ceiling = min(self._highest, self._ceiling * 10 ** (1 / TENFOLD))
        self._keep_below(step)
        if not self._skip_next:
            self._taken += 1
            return self._cut.scale < 1.0
        self._skip_next = False
        step.skip()
        return True

    def note(self, step: OptimizerStep, is_well: bool) -> None:
        """Note whether a reading was finite, and whether the run is well."""
        self._finite += step.reading.is_finite
        self._well = self._well + 1 if is_well else 0

    def _keep_below(self, step: OptimizerStep) -> None:
        now = step.learning_rate.clean()[0]
        if self._ceiling is not None and now > 0:
            scale = min(1.0, self._ceiling * _share_of_length(step, self._taken + 1) / now)
            if scale != self._cut.scale:
                self._cut.set(step.learning_rate, scale)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists; the snapshots are the engine's."""
        return {
            "cut": self._cut.state_dict(),
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
        self._cut.load_state_dict(state["cut"])
        self._ceiling, self._lowest, self._highest = state["ceiling"]
        self._well, self._rates = state["well"], list(state["rates"])
        self._done, self._last, self._skip_next = state["done"], list(state["last"]), state["skip_next"]
        self._finite, self._taken = state["finite"], state["taken"]


def was_raised(step: OptimizerStep) -> bool:
    """True if the rate is far above the one of the latest snapshot."""
    entry = (
        step.run_state.snapshots.latest()
        if step.run_state is not None and step.run_state.snapshots is not None
        else None
    )
    return entry is not None and not entry["first"] and step.learning_rate.effective()[0] > RAISED * entry["rate"] > 0


def _is_of(step: OptimizerStep, run_state: RunState) -> bool:
    """True if the alert is this step's own, not an earlier one whose remedy was not enough."""
    return run_state.alert is not None and run_state.alert.step == step.reading.step


def _share_of_length(step: OptimizerStep, taken: float) -> float:
    """Share of the present rate at which RMSprop's step after so many others is as long as later on; 1 elsewhere."""
    return math.sqrt(1 - step.plan.slowness**taken)


def _share_that_helps(evidence: Mapping[str, float]) -> float:
    """Share of the rate at which the diagnosis saw the batch's loss fall; 1 if a step has thrown the weights away."""
    is_near = "first_reading" in evidence or evidence.get("loss_ratio_of_last_step", math.inf) < NEAR
    return evidence.get("rate_that_helps", 1.0) if is_near else 1.0
