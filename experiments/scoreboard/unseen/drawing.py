"""Drawing: a number becomes the settings of a run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from experiments.scoreboard.unseen import modern

RATES = {"sgd": 0.03, "nesterov": 0.03, "adam": 2e-3, "adamw": 2e-3, "rmsprop": 1e-3}  # usual ones
DECADES = (-0.6, 0.9)  # by which a rate may be off: from a quarter of the usual one to eight times it
FAULTS = (
    [],
    [],
    [],
    [],
    ["fault=corrupt_batch", "fault.factor={factor}"],
    ["fault=bad_value"],
    ["fault=raised_rate", "fault.factor={factor}"],
)


def draw(number: int) -> list[str]:
    """Return the settings of a run, as Hydra takes them: the same ones for the same number, everywhere.

    Task and network, depth, activation, initialisation, normalisation, optimizer, rate and schedule are each drawn
    from what is common; the rate may be too low or too high. Three in seven get a fault in mid-run: a batch of
    noise, a batch with NaN, or a rate that is raised for good. From 100,000 on the nets and optimizers of today are
    drawn (see :mod:`experiments.scoreboard.unseen.modern`).
    """
    if number >= modern.FIRST:
        return modern.draw(number)
    lot = random.Random(f"unseen/{number}")
    optimizer = lot.choice(list(RATES))
    rate = RATES[optimizer] * 10 ** lot.uniform(*DECADES)
    settings = [
        "trainer=steps",
        f"trainer.max_steps={lot.choice([200, 250, 300])}",
        f"seed={number}",
        f"optimizer={optimizer}",
        f"optimizer.lr={rate:.3g}",
        f"schedule={lot.choice(['none', 'none', 'cosine', 'warmup', 'one_cycle'])}",
    ]
    settings += NETWORKS[lot.choice(list(NETWORKS))](lot)
    fault = [part.format(factor=lot.choice([30, 100, 300, 1000])) for part in lot.choice(FAULTS)]
    if "data=text" in settings and "fault=raised_rate" not in fault:
        fault = []  # there is no noise among letters
    return settings + (fault and [*fault, f"fault.step={lot.choice([60, 100, 150])}"])


def _layers(lot: random.Random) -> list[str]:
    return [
        f"activation={lot.choice(['relu', 'tanh', 'gelu', 'leaky_relu', 'sigmoid'])}",
        f"init={lot.choice(['he', 'he', 'xavier', 'default', 'orthogonal'])}",
    ]


def _mlp(lot: random.Random) -> list[str]:
    depth, norm = lot.choice([2, 3, 4, 6, 8, 12, 20]), lot.choice(["none", "none", "layer", "batch"])
    return ["model=mlp", f"model.depth={depth}", f"norm={norm}", *_layers(lot)]


def _residual(lot: random.Random) -> list[str]:
    blocks, norm = lot.choice([4, 8, 16, 32, 48]), lot.choice(["none", "none", "layer", "batch"])
    scale = lot.choice(["null", "null", "1.0"])
    return [
        "model=residual_mlp",
        f"model.blocks={blocks}",
        f"norm={norm}",
        f"model.branch_scale={scale}",
        *_layers(lot),
    ]


def _convolutional(lot: random.Random) -> list[str]:
    depth, is_normal = lot.choice([3, 4, 6, 10]), lot.choice(["true", "false"])
    return ["model=convolutional", f"model.depth={depth}", f"model.batch_norm={is_normal}", *_layers(lot)]


def _residual_convolutional(lot: random.Random) -> list[str]:
    blocks, is_normal = lot.choice([2, 4, 8]), lot.choice(["true", "false"])
    return ["model=residual_convolutional", f"model.blocks={blocks}", f"model.batch_norm={is_normal}", *_layers(lot)]


def _recurrent(lot: random.Random) -> list[str]:
    cell, steps = lot.choice(["gru", "lstm"]), lot.choice([8, 16, 32])
    return ["data=pixel_digits", f"data.steps={steps}", "model=recurrent", f"model.cell={cell}"]


def _regression(lot: random.Random) -> list[str]:
    depth, norm = lot.choice([3, 6, 10]), lot.choice(["none", "layer"])
    network = ["model=mlp", f"model.depth={depth}", "model.width=128", f"norm={norm}", *_layers(lot)]
    return ["data=waves", "data.count=20000", "task=regressor", *network]


def _transformer(lot: random.Random) -> list[str]:
    depth, is_pre = lot.choice([2, 4, 6]), lot.choice(["true", "false"])
    network = ["model=transformer", f"model.depth={depth}", f"model.pre_norm={is_pre}", "activation=gelu"]
    return ["data=text", "task=language", "init=default", *network]


def _autoencoder(lot: random.Random) -> list[str]:
    return ["task=reconstruction", "model=autoencoder", *_layers(lot)[:1]]


NETWORKS: Mapping[str, Callable[[random.Random], Sequence[str]]] = {
    "mlp": _mlp,
    "residual": _residual,
    "convolutional": _convolutional,
    "residual_convolutional": _residual_convolutional,
    "recurrent": _recurrent,
    "regression": _regression,
    "transformer": _transformer,
    "autoencoder": _autoencoder,
}
