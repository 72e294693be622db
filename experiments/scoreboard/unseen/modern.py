"""Drawing from the nets and optimizers of today: a number becomes the settings of a run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FIRST = 100_000  # number from which on these are drawn; those below draw as they always have
DECADES = (-0.6, 0.9)  # by which a rate may be off: from a quarter of the usual one to eight times it
FAULTS: tuple[list[str], ...] = (
    [],
    [],
    [],
    [],
    ["fault=corrupt_batch", "fault.factor={factor}"],
    ["fault=bad_value"],
    ["fault=raised_rate", "fault.factor={factor}"],
)


@dataclass(frozen=True)
class Drawn:
    """What a family leaves to the rest of the draw.

    Attributes:
        settings: Of data, task and network, as Hydra takes them.
        rates: The usual rate of each optimizer that suits it.
        steps: Least number of steps in which it learns.
        numbers: Whether its inputs are numbers: a word cannot be noise.
        optimizers: How many optimizers step at each batch.
        schedules: Whether it takes a schedule.
    """

    settings: Sequence[str]
    rates: Mapping[str, float]
    steps: int = 250
    numbers: bool = True
    optimizers: int = 1
    schedules: bool = True


ADAM = {"adam": 3e-3, "adamw": 3e-3}
MANY = {**ADAM, "sgd": 0.05, "adafactor": 0.01}


def draw(number: int) -> list[str]:
    """Return the settings of a run, as Hydra takes them: the same ones for the same number, everywhere.

    The family is drawn first, then its depth, width and what else it may vary, an optimizer that suits it, rate,
    schedule, and in three of seven runs a fault, as in :func:`experiments.scoreboard.unseen.drawing.draw`.
    """
    lot = random.Random(f"unseen/modern/{number}")
    family = FAMILIES[lot.choice(list(FAMILIES))](lot)
    optimizer = lot.choice(list(family.rates))
    rate = family.rates[optimizer] * 10 ** lot.uniform(*DECADES)
    batches = family.steps + lot.choice([0, 50, 100])
    settings = [
        "trainer=steps",
        f"trainer.max_steps={family.optimizers * batches}",
        f"trainer.val_check_interval={batches}",
        f"seed={number}",
        *family.settings,
        f"optimizer={optimizer}",
        f"optimizer.lr={rate:.3g}",
    ]
    schedule = lot.choice(["none", "none", "cosine", "warmup_cosine", "one_cycle"])
    if family.schedules and not (optimizer == "adafactor" and schedule == "one_cycle"):  # that one turns a momentum
        settings.append(f"schedule={schedule}")
    fault = [part.format(factor=lot.choice([30, 100, 300, 1000])) for part in lot.choice(FAULTS)]
    step = lot.choice([60, 100, 150]) * family.optimizers
    if not family.numbers and "fault=raised_rate" not in fault:
        fault = []
    return settings + (fault and [*fault, f"fault.step={step}"])


def _gated(lot: random.Random) -> Drawn:
    words, norm = lot.choice([True, False]), lot.choice(["true", "true", "false"])
    network = [f"model.blocks={lot.choice([2, 4, 8, 16])}", f"model.width={lot.choice([24, 32, 48])}"]
    network += [f"model.words={str(words).lower()}", f"model.norm={norm}", "init=default"]
    return Drawn(["model=gated", *network, *(["data=words"] if words else [])], MANY, numbers=not words)


def _convnext(lot: random.Random) -> Drawn:
    scale, norm = lot.choice(["1e-6", "0.1", "null"]), lot.choice(["true", "true", "false"])
    network = [f"model.blocks={lot.choice([2, 3, 6])}", f"model.layer_scale={scale}", f"model.norm={norm}"]
    return Drawn(["model=convnext", "init=default", *network], MANY)


def _resnet(lot: random.Random) -> Drawn:
    norm, skip = lot.choice(["true", "true", "false"]), lot.choice(["true", "true", "false"])
    network = [f"model.blocks={lot.choice([2, 3, 6, 12])}", f"model.batch_norm={norm}", f"model.skip={skip}"]
    return Drawn(["model=resnet", f"init={lot.choice(['he', 'default'])}", *network], MANY)


def _muon(lot: random.Random) -> Drawn:
    network = ["model=mlp", f"model.depth={lot.choice([3, 6, 12])}", f"activation={lot.choice(['relu', 'gelu'])}"]
    if lot.choice([True, False]):
        return Drawn([*network, "biases=false"], {"muon": 0.02})
    rate = f"task.rate={lot.choice([5e-4, 1e-3, 4e-3])}"
    return Drawn([*network, "task=muon", rate], {"muon": 0.02}, optimizers=2, schedules=False)


def _variational(lot: random.Random) -> Drawn:
    network = [f"model.widths={lot.choice(['[64,32]', '[64,64,32]', '[128]'])}", f"model.code={lot.choice([4, 8, 16])}"]
    return Drawn(["model=vae", "task=variational", *network], {"adam": 2e-3, "adamw": 2e-3, "adafactor": 0.01}, 350)


def _flow(lot: random.Random) -> Drawn:
    network = [f"model.layers={lot.choice([4, 6, 10])}", f"model.bound={lot.choice(['2.0', 'null'])}"]
    return Drawn(["model=flow", "task=density", *_plane(lot), "activation=gelu", *network], ADAM, 350)


def _mixture(lot: random.Random) -> Drawn:
    network = [f"model.components={lot.choice([3, 5, 10])}", f"model.depth={lot.choice([2, 3, 4])}"]
    names = ["data=inverse", "model=mixture", "task=mixture", "activation=tanh", "init=default"]
    return Drawn([*names, *network], {"adam": 5e-3, "adamw": 5e-3}, 400)


def _transcriber(lot: random.Random) -> Drawn:
    network = [f"model.hidden={lot.choice([32, 48])}", f"model.stride={lot.choice([1, 2])}"]
    names = ["data=digit_strings", f"data.length={lot.choice([2, 3])}", "model=transcriber", "task=transcription"]
    return Drawn([*names, *network], {"adam": 5e-3, "rmsprop": 3e-3}, 350)


def _policy(lot: random.Random) -> Drawn:
    network = [f"task.reuse={lot.choice([1, 4, 8])}", f"model.depth={lot.choice([1, 2, 4])}"]
    return Drawn(["model=mlp", "task=clipped_policy", *network], {"adam": 2e-3, "adamw": 2e-3}, 500)


def _wasserstein(lot: random.Random) -> Drawn:
    network = [f"task.penalty={lot.choice([1.0, 10.0])}", f"model.depth={lot.choice([2, 3])}"]
    names = ["model=gan", "task=wasserstein", *_plane(lot), "activation=leaky_relu"]
    return Drawn([*names, *network], {"adam": 2e-3, "rmsprop": 1e-3}, 500, optimizers=2, schedules=False)


def _graph(lot: random.Random) -> Drawn:
    network = [f"model.depth={lot.choice([2, 3, 4, 8])}", f"model.skip={lot.choice(['true', 'false'])}"]
    network += [f"activation={lot.choice(['relu', 'tanh'])}", f"init={lot.choice(['he', 'xavier', 'default'])}"]
    return Drawn(["data=graphs", "model=graph", *network], MANY)


def _ode(lot: random.Random) -> Drawn:
    network = [f"model.steps={lot.choice([5, 10, 20])}", f"model.horizon={lot.choice([1.0, 3.0])}"]
    network += [f"model.decay={lot.choice([0.0, 1.0])}", f"activation={lot.choice(['tanh', 'relu'])}"]
    return Drawn(["model=neural_ode", *lot.choice([_plane(lot), []]), "init=default", *network], MANY)


def _adapted(lot: random.Random) -> Drawn:
    network = [f"model.rank={lot.choice([2, 8])}", f"model.scale={lot.choice([1.0, 4.0])}", "model.depth=4"]
    names = ["data=shifted_digits", "task=fine_tuning", "task.fresh=[adapter]", "task.frozen=[base]", "model=adapted"]
    return Drawn([*names, *network], {"adam": 5e-3, "adamw": 5e-3, "adafactor": 0.02}, 300)


def _squashed(lot: random.Random) -> Drawn:
    squash = lot.choice(["softmax", "sigmoid", "relu"])
    return Drawn([f"model=squashed_{squash}", f"model.depth={lot.choice([2, 3, 6])}"], MANY, 300)


def _plane(lot: random.Random) -> list[str]:
    return ["data=plane", f"data.shape={lot.choice(['moons', 'ring'])}"]


FAMILIES: Mapping[str, Callable[[random.Random], Drawn]] = {
    "gated": _gated,
    "convnext": _convnext,
    "resnet": _resnet,
    "muon": _muon,
    "variational": _variational,
    "flow": _flow,
    "mixture": _mixture,
    "transcriber": _transcriber,
    "policy": _policy,
    "wasserstein": _wasserstein,
    "graph": _graph,
    "ode": _ode,
    "adapted": _adapted,
    "squashed": _squashed,
}
