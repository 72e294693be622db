"""A recording: all that a rule may look at of one run, in one file, to be judged again without training."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.corpus.columns import Arrays, from_columns, to_columns
from grad_callbacks import Alert, Reading
from grad_callbacks.measurement import Layers

FORMAT = 2  # raise it when something else is recorded, or otherwise


@dataclass
class Segment:
    """Readings of one optimizer over the same layers.

    Attributes:
        layers: The layers; of the parameters only the shapes are left when it was read from a file.
        readings: One per step.
        beside: What only published rules look at, by name (see :mod:`experiments.corpus.measures`): arrays of
            shape ``(readings, parameters)``.
    """

    layers: Layers
    readings: list[Reading] = field(default_factory=list)
    beside: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass
class Stream:
    """All readings of one optimizer: a new segment begins where its layers change."""

    segments: list[Segment] = field(default_factory=list)

    @property
    def readings(self) -> Iterator[Reading]:
        """All readings in order."""
        return (reading for segment in self.segments for reading in segment.readings)


@dataclass
class Activation:
    """What was seen at the activation modules, at some steps (see :mod:`experiments.corpus.measures`).

    Attributes:
        names: The modules, in the order they were first run.
        kinds: Their class names.
        steps: The steps at which they were looked at.
        shares: By quantity, arrays of shape ``(steps, modules)``; NaN where it does not apply.
    """

    names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shares: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass
class Recording:
    """One run.

    Attributes:
        scenario: Name of the scenario.
        seed: Its seed.
        quality: Final ``val/quality``; NaN if it is not finite.
        streams: The readings, by index of the optimizer.
        alerts: What the live monitor said.
        loss_steps: ``trainer.global_step`` before each batch, shape ``(batches,)``.
        losses: Training loss of each batch, shape ``(batches,)``; NaN where there was none.
        epochs: ``trainer.global_step`` at the start of each epoch.
        activation: What was seen at the activation modules.
        steps: Steps of the run, over all optimizers.
        seconds: How long the training took.
        rules_key: Of the code that raised the alerts.
    """

    scenario: str
    seed: int
    quality: float
    streams: dict[int, Stream]
    alerts: list[Alert]
    loss_steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    epochs: list[int] = field(default_factory=list)
    activation: Activation = field(default_factory=Activation)
    steps: int = 0
    seconds: float = 0.0
    rules_key: str = ""

    @property
    def name(self) -> str:
        """Scenario and seed."""
        return f"{self.scenario}/{self.seed}"

    @property
    def readings(self) -> int:
        """Number of readings over all optimizers."""
        return sum(len(segment.readings) for stream in self.streams.values() for segment in stream.segments)

    def step_losses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the steps, ascending, and the mean loss of the batches of each."""
        steps, index = np.unique(self.loss_steps, return_inverse=True)
        with np.errstate(invalid="ignore"):
            sums = np.bincount(index, weights=self.losses, minlength=len(steps))
        return steps, sums / np.maximum(np.bincount(index, minlength=len(steps)), 1)

    def write(self, path: Path) -> None:
        """Write to ``path``, which is there completely or not at all."""
        arrays: Arrays = {
            "loss_steps": self.loss_steps,
            "losses": self.losses,
            "activation.steps": self.activation.steps,
        }
        arrays |= {f"activation.{name}": values for name, values in self.activation.shares.items()}
        head = {
            "format": FORMAT,
            "scenario": self.scenario,
            "seed": self.seed,
            "quality": self.quality,
            "alerts": [alert.to_dict() for alert in self.alerts],
            "epochs": self.epochs,
            "activation": {"names": self.activation.names, "kinds": self.activation.kinds},
            "steps": self.steps,
            "seconds": self.seconds,
            "rules_key": self.rules_key,
            "streams": {
                str(index): [
                    _write_segment(segment, f"{index}.{place}", arrays) for place, segment in enumerate(stream.segments)
                ]
                for index, stream in self.streams.items()
            },
        }
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(buffer.getvalue())
        os.replace(unfinished, path)

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays["head"].tobytes().decode())
        seen = {
            name.removeprefix("activation."): values
            for name, values in arrays.items()
            if name.startswith("activation.") and name != "activation.steps"
        }
        return cls(
            scenario=head["scenario"],
            seed=head["seed"],
            quality=head["quality"],
            streams={
                int(index): Stream([_read_segment(told, arrays) for told in segments])
                for index, segments in head["streams"].items()
            },
            alerts=[Alert.from_dict(alert) for alert in head["alerts"]],
            loss_steps=arrays["loss_steps"],
            losses=arrays["losses"],
            epochs=head["epochs"],
            activation=Activation(**head["activation"], steps=arrays["activation.steps"], shares=seen),
            steps=head["steps"],
            seconds=head["seconds"],
            rules_key=head["rules_key"],
        )


_LEFT_OUT = {"layers"}  # of a reading: the segment has them
_NOT_KEPT = {"parameters", "sharding"}  # of the layers: the weights themselves


def _write_segment(segment: Segment, prefix: str, arrays: Arrays) -> dict[str, Any]:
    names = [f.name for f in fields(Reading) if f.name not in _LEFT_OUT]
    columns = {name: [getattr(reading, name) for reading in segment.readings] for name in names}
    kept = [f.name for f in fields(Layers) if f.name not in _NOT_KEPT]
    layers = {name: [_plain(getattr(segment.layers, name))] for name in kept}
    arrays |= {f"{prefix}.beside.{name}": values for name, values in segment.beside.items()}
    return {
        "prefix": prefix,
        "readings": to_columns(columns, f"{prefix}.reading", arrays),
        "layers": to_columns(layers, f"{prefix}.layers", arrays),
        "beside": list(segment.beside),
    }


def _plain(value: Any) -> Any:
    return (
        [list(shape) for shape in value]
        if isinstance(value, Sequence)
        and not isinstance(value, str)
        and any(isinstance(shape, torch.Size) for shape in value)
        else value
    )


def _read_segment(told: dict[str, Any], arrays: Arrays) -> Segment:
    known = {name: values[0] for name, values in from_columns(told["layers"], arrays).items()}
    shapes = tuple(torch.Size(shape) for shape in known.pop("shapes"))
    names = tuple(known.pop("names"))
    # On the device "meta" a tensor has a shape and no memory.
    parameters = tuple(torch.empty(shape, device="meta") for shape in shapes)
    layers = Layers(names=names, shapes=shapes, parameters=parameters, **known)
    columns = from_columns(told["readings"], arrays)
    rows = zip(*columns.values(), strict=True)
    readings = [Reading(layers=layers, **dict(zip(columns, row, strict=True))) for row in rows]
    return Segment(layers, readings, {name: arrays[f"{told['prefix']}.beside.{name}"] for name in told["beside"]})
