"""The recorder: keeps what a rule may look at while a run trains under a monitor with its defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from experiments.corpus.measures import (
    ACTIVATION_SHARES,
    activation_shares,
    mean_absolute,
    middle_range,
    zero_share,
)
from experiments.corpus.recording import Activation, Recording, Segment, Stream
from grad_callbacks import Alert, GradientMonitor, Reading, Rule
from grad_callbacks.detection.rules import RULES

EARLY = 10  # first readings that are looked at in full
EVERY = 5  # later ones whose zeros are counted
EVERY_ACTIVATION = 10  # steps
NO_UNITS = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax)  # among torch's activations


class KeepReadings(Rule):
    """A rule that says nothing and keeps each reading. All optimizers share one: a copy is itself."""

    kind: str = "nonfinite"
    active = False

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.unmeasured: Segment | None = None  # the last reading's, until it is measured

    def __deepcopy__(self, memo: dict[int, Any]) -> KeepReadings:
        return self

    def judge(self, reading: Reading) -> Alert | None:
        """Keep the reading."""
        segments = self.streams.setdefault(reading.optimizer, Stream()).segments
        if not segments or segments[-1].layers is not reading.layers:
            segments.append(Segment(reading.layers))
        segments[-1].readings.append(reading)
        self.unmeasured = segments[-1]
        return None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: it is never saved."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


class Recorder(Callback):
    """Measures beside the monitor what only published rules look at; never changes training.

    Put :attr:`monitor` before it among the Trainer's callbacks. For runs on the CPU: on an accelerator readings come a
    step later than their gradients.

    Attributes:
        monitor: A monitor with default rules, which also keeps its readings.
    """

    def __init__(self) -> None:
        self.keep = KeepReadings()
        self.monitor = GradientMonitor(rules=[*RULES, self.keep])
        self._beside: dict[int, dict[str, list[list[float]]]] = {}  # by id of the segment
        self._losses: list[tuple[int, float]] = []
        self._epochs: list[int] = []
        self._hooks: list[Any] = []
        self._looks = False
        self._step = 0
        self._looked_at: dict[str, str] = {}  # activation modules by name, and their kinds
        self._seen: dict[int, dict[str, tuple[float, ...]]] = {}  # by step and module

    # Lightning's hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook into the activation modules."""
        for name, module in pl_module.named_modules():
            if type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, NO_UNITS):
                self._hooks.append(module.register_forward_hook(self._hook(name)))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where an epoch begins."""
        self._epochs.append(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the step, and whether its activations are looked at."""
        self._step = trainer.global_step
        self._looks = self._step % EVERY_ACTIVATION == 0 and self._step not in self._seen

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure the gradients of the reading that the monitor has just taken."""
        segment, self.keep.unmeasured = self.keep.unmeasured, None
        if segment is not None:
            self._measure(segment)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss."""
        self._looks = False
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            loss = trainer.callback_metrics.get("train/loss")
        self._losses.append((self._step, math.nan if loss is None else float(loss.detach())))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the model."""
        for hook in self._hooks:
            hook.remove()
        self._step = trainer.global_step

    # What was recorded

    def recording(self, scenario: str, seed: int, quality: float, seconds: float, rules_key: str) -> Recording:
        """Return all that was recorded."""
        for stream in self.keep.streams.values():
            for segment in stream.segments:
                columns = self._beside.get(id(segment), {})
                segment.beside = {name: np.array(rows, dtype=np.float64) for name, rows in columns.items()}
        return Recording(
            scenario=scenario,
            seed=seed,
            quality=quality,
            streams=self.keep.streams,
            alerts=list(self.monitor.alerts),
            loss_steps=np.array([step for step, _ in self._losses], dtype=np.int64),
            losses=np.array([loss for _, loss in self._losses], dtype=np.float64),
            epochs=self._epochs,
            activation=self._activation(),
            steps=self._step,
            seconds=seconds,
            rules_key=rules_key,
        )

    def _activation(self) -> Activation:
        names, steps = list(self._looked_at), sorted(self._seen)
        none = (math.nan,) * len(ACTIVATION_SHARES)
        table = np.array([[self._seen[step].get(name, none) for name in names] for step in steps], dtype=np.float64)
        table = table.reshape(len(steps), len(names), len(ACTIVATION_SHARES))
        return Activation(
            names=names,
            kinds=list(self._looked_at.values()),
            steps=np.array(steps, dtype=np.int64),
            shares={name: table[:, :, i] for i, name in enumerate(ACTIVATION_SHARES)},
        )

    # Named calls

    def _measure(self, segment: Segment) -> None:
        gradients = segment.layers.gradients()
        sizes = segment.layers.numel.tolist()
        columns = self._beside.setdefault(id(segment), {"mean_absolute": [], "zero_share": [], "middle_range": []})
        place = len(segment.readings) - 1
        columns["mean_absolute"].append(mean_absolute(gradients, sizes))
        counts = place < EARLY or place % EVERY == 0
        pairs = zip(gradients, sizes, strict=True)
        columns["zero_share"].append([zero_share(g, size) if counts else math.nan for g, size in pairs])
        columns["middle_range"].append([middle_range(g) if place < EARLY else math.nan for g in gradients])

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
            if self._looks and module.training and isinstance(inputs[0], Tensor) and isinstance(outputs, Tensor):
                self._looked_at.setdefault(name, type(module).__name__)
                # A module that is run again in the same step, as in a recurrence, is looked at the first time.
                seen = self._seen.setdefault(self._step, {})
                if name not in seen:
                    seen[name] = activation_shares(module, inputs[0], outputs)

        return look
