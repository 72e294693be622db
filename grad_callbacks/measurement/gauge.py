"""Takes the readings of one optimizer, step after step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import is_
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.attention import Attention
from grad_callbacks.measurement.device_transfer import DeviceTransfer
from grad_callbacks.measurement.layer_order import ForwardHooks, order_of_use
from grad_callbacks.measurement.layers import Layers, all_by_depth
from grad_callbacks.measurement.pending_reading import About, PendingReading
from grad_callbacks.measurement.recurrence import Recurrence
from grad_callbacks.measurement.schedule import SCHEDULE
from grad_callbacks.measurement.sharding import agree, is_alone
from grad_callbacks.measurement.signal import Signal
from grad_callbacks.measurement.update_ratio import StepPlan, UpdateRatios


@dataclass(frozen=True)
class GaugeThresholds(Thresholds):
    """Thresholds of the search for the order of the layers."""

    losses: int = threshold(
        8,
        "losses before the first step whose autograd graph is walked for the order of the layers",
        unit="losses",
        source="not measured; each costs a walk over its graph",
    )


LIMITS = GaugeThresholds()


class Gauge:
    """Groups an optimizer's parameters into layers, in forward order, and measures them.

    Args:
        model: Gives the layers their names and their order.
        optimizer: Its parameters are measured.
        agree_on: Takes this process's order of the layers and returns the one that all processes use.
        replicas: The processes that train replicas of the model, if they do.

    Raises:
        ValueError: If the processes of a sharded run hold different layers.

    Attributes:
        layers: The layers at present.
        update_ratios: How far steps move them, relative to their weights.
        signal: What they put out, and the error that comes back.
        order: Names of the layers in forward order; empty while unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        agree_on: Callable[[list[str]], list[str]] | None = None,
        replicas: dist.ProcessGroup | None = None,
    ) -> None:
        self._model = model
        self.replicas = replicas
        self._recurrence = Recurrence(model)
        self.signal = Signal(model)
        self._optimizer = optimizer
        self.order: list[str] = []
        self._used: list[str] = []  # layers in the order of their use, as far as losses have shown it
        self._observed = 0
        self._regroup()
        self._attention = Attention(model, optimizer, is_left_out=self.layers.sharding is not None)
        self._agree_on = agree_on or (agree if self.layers.sharding is not None else list)
        self._hooks = ForwardHooks(model) if self.layers.sharding is not None else None

    def observe(self, loss: Tensor) -> None:
        """Learn the order of the layers from a loss, if it is not known yet; before or after its backward pass."""
        if not self.order and self._hooks is None and self._observed < LIMITS.losses:
            self._observed += 1
            self._used = list(dict.fromkeys([*self._used, *order_of_use(loss, self._model)]))

    def prepare(self) -> None:
        """Fix the order of the layers at the first step; regroup them when the parameters have changed."""
        if not self.order:
            used = self._used if self._hooks is None else self._hooks.called
            self._fix_order(self._agree_on(all_by_depth(self._model, used)))
        elif not self.is_grouped():
            self._regroup()  # a fine-tuning schedule has added parameters, or a head was replaced

    def is_grouped(self) -> bool:
        """False if the optimizer's parameters have changed since they were grouped."""
        return _is_same(self._grouping, [group["params"] for group in self._optimizer.param_groups])

    def replay(self, replay: Callable[[], Tensor] | None) -> None:
        """Run a compiled model's batch again, if it is time to measure it.

        Args:
            replay: Computes its loss; None where that is not possible.
        """
        if self.signal.needs_replay:
            self.signal.replay(self._attention.watched(replay))

    def take(self, plan: StepPlan, about: About, loss_scale: float | Tensor = 1.0) -> PendingReading | None:
        """Measure the gradients as they are now; None if there is none."""
        of_pass = (*self._recurrence.take(), *self._attention.take(), self.signal.take(self.layers))
        if self.replicas is None and self.layers.sharding is None and not is_alone():
            # Those of the other processes are unknown.
            about, of_pass = replace(about, loss=None), (None, None, None, None, None)
        return PendingReading.take(self.update_ratios, plan, about, loss_scale, of_pass, self.replicas, self.signal)

    @property
    def _of_passes(self) -> tuple[Signal, Recurrence, Attention]:
        return self.signal, self._recurrence, self._attention

    def until_due(self) -> int:
        """Return for how many readings nothing of the passes is measured, only gradients and weights."""
        known = [number for each in self._of_passes if (number := each.until_due) is not None]
        return min(known, default=SCHEDULE.interval)

    def measure_weights(self) -> None:
        """Measure the weights at once, and prepare to measure the step's update."""
        sums = self.update_ratios.weights_now()
        self.update_ratios.arrive({name: total.numpy() for name, total in sums.items()})

    def pass_over(self, readings: int) -> None:
        """Count readings of which only the gradients' norms were measured, and prepare for the next one."""
        self.update_ratios.readings += readings
        for each in self._of_passes:
            each.pass_over(readings)

    def look_closely(self, is_near: bool) -> None:
        """Measure the next reading as a whole, or only what it is time for.

        Args:
            is_near: An alert may come soon.
        """
        self.update_ratios.is_wanted = self.signal.is_wanted = self._attention.is_wanted = is_near

    def fetch_update_ratios(self) -> bool:
        """Copy the last update ratios to the host without waiting for the next reading; True if there were any."""
        if self.layers.sharding is not None:
            return False  # it would take a collective that the other processes do not expect
        sums = {name: DeviceTransfer([moved]).wait()[0] for name, moved in self.update_ratios.collect().items()}
        self.update_ratios.arrive(sums)
        return bool(sums)

    def close(self) -> None:
        """Remove all hooks from the model."""
        self._recurrence.detach()
        self._attention.detach()
        self.signal.detach()
        self._release_order()

    def _release_order(self) -> None:
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists."""
        return {
            "order": list(self.order),
            "layers": list(self.layers.names),
            "motion": self.update_ratios.state_dict(),
            "signal": self.signal.state_dict(),
            "attention": self._attention.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        if state["order"]:
            self._fix_order(state["order"])
        if state["layers"] == list(self.layers.names):  # fine-tuning may have added layers since
            self.update_ratios.load_state_dict(state["motion"])
            if "signal" in state:  # an older version did not measure it
                self.signal.load_state_dict(state["signal"])
        if "attention" in state:
            self._attention.load_state_dict(state["attention"])

    def _fix_order(self, order: list[str]) -> None:
        self._release_order()
        self.order = list(order)
        self._regroup()

    def _regroup(self) -> None:
        self._grouping = [list(group["params"]) for group in self._optimizer.param_groups]
        self.layers = Layers.of(self._optimizer, self._model, self.order)
        self.update_ratios = UpdateRatios(self.layers)
        self.signal.forget()
        if self.layers.sharding is not None:
            self.layers.sharding.check_alike(self.layers.names)


def _is_same(before: Sequence[Sequence[Tensor]], now: Sequence[Sequence[Tensor]]) -> bool:
    """True for the same parameters; by functions written in C: with a thousand of them this matters."""
    return list(map(len, before)) == list(map(len, now)) and all(
        all(map(is_, mine, others)) for mine, others in zip(before, now, strict=True)
    )
