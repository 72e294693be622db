"""What is claimed: each problem's cause, each cure of it, and what depth makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.syllabus.cures import CURES
from experiments.syllabus.problems import PROBLEMS, Problem

# Names of cures that the founding text gives for each kind; the others are the field's.
IN_THE_TEXT = {
    "vanishing": (
        "relu",
        "leaky_relu",
        "prelu",
        "gelu",
        "batch_norm",
        "init_he",
        "init_xavier",
        "residual",
        "clip_value",
    ),
    "exploding": ("clip_value", "clip_norm", "init_he", "init_xavier", "low_rate", "batch_norm", "layer_norm"),
}
_ACTIVATIONS = ("relu", "leaky_relu", "prelu", "gelu", "elu", "selu", "silu")
_NORMS = ("batch_norm", "layer_norm", "group_norm", "rms_norm")
_INITS = ("init_he", "init_xavier", "init_orthogonal", "init_lsuv")
_STEPS = ("clip_value", "clip_norm", "agc", "low_rate", "warmup")
_TRIED: dict[str, tuple[str, ...]] = {
    "sigmoid": (*_ACTIVATIONS, "tanh", *_NORMS, "init_he", "init_orthogonal", "init_lsuv", "residual", *_STEPS),
    "tanh": ("relu", "gelu", "selu", *_NORMS, *_INITS, "residual", "clip_value", "clip_norm", "low_rate"),
    "tanh_saturated": ("batch_norm", "layer_norm", *_INITS, "residual", "clip_value", "low_rate"),
    "relu_default": ("gelu", "selu", *_NORMS, *_INITS, "residual", *_STEPS),
    "chain_tenth": ("init_xavier", "init_orthogonal", "init_lsuv", "batch_norm", "residual", "clip_value", "low_rate"),
    "conv_sigmoid": ("relu", "gelu", *_NORMS, "init_he", "init_lsuv", "residual", "clip_value", "clip_norm"),
    "recurrent_forgets": ("orthogonal", "gru", "lstm", "clip_value", "clip_norm", "low_rate"),
    "large_weights": ("selu", *_NORMS, *_INITS, "residual", *_STEPS),
    "chain_ten": ("init_xavier", "init_orthogonal", "batch_norm", "clip_value", "clip_norm", "agc", "low_rate"),
    "conv_large": (*_NORMS, *_INITS, *_STEPS),
    "residual_unscaled": ("scaled", "fixup", "batch_norm", "layer_norm", "init_lsuv", *_STEPS),
    "high_rate": ("batch_norm", "layer_norm", "init_xavier", "residual", *_STEPS),
    "recurrent_explodes": ("orthogonal", "gru", "lstm", *_STEPS),
    "transformer_rate": ("post_norm", "init_xavier", *_STEPS),
}
SEEDS = 5  # of each setting, unless asked otherwise
DEPTHS = (2, 5, 10, 20, 30, 60)
DEEP = ("sigmoid", "relu_default", "relu_default+init_he")  # nets whose depth is varied, the last as a control
QUICK = ("sigmoid", "large_weights", "recurrent_explodes")
QUICK_CURES = ("relu", "batch_norm", "layer_norm", "init_he", "clip_value", "clip_norm")


@dataclass(frozen=True, order=True)
class Setting:
    """A net to train: a problem, and what is changed in it.

    Attributes:
        problem: Name of the problem.
        cures: Names of cures, all of them at once.
        guard: ``monitor`` or ``full``.
        biases: Whether the layers have biases.
    """

    problem: str
    cures: tuple[str, ...] = ()
    guard: str = "monitor"
    biases: bool = True

    @property
    def name(self) -> str:
        """The setting in one word, for a file's and a run's name."""
        return "+".join([self.problem, *self.cures, *(["guard"] if self.guard == "full" else [])]) + (
            "" if self.biases else "-unbiased"
        )


def cures_of(problem: Problem) -> tuple[str, ...]:
    """Return the names of the cures that are tried against a problem."""
    return _TRIED[problem.name]


def deep_setting(net: str, depth: int) -> Setting:
    """Return the setting of one of :data:`DEEP` at a depth."""
    problem, *cures = net.split("+")
    return Setting(problem, (*cures, f"depth_{depth}"))


def all_settings(subset: str = "all") -> list[Setting]:
    """Return all that is trained, the problems first.

    Args:
        subset: ``"all"``, or ``"quick"`` for three problems and some cures.
    """
    quick = subset == "quick"
    chosen = [problem for name, problem in PROBLEMS.items() if not quick or name in QUICK]
    found = [Setting(problem.name, guard=guard) for problem in chosen for guard in ("monitor", "full")]
    found += [
        Setting(problem.name, (cure,))
        for problem in chosen
        for cure in cures_of(problem)
        if not quick or cure in QUICK_CURES
    ]
    if not quick:
        found += [deep_setting(net, depth) for net in DEEP for depth in DEPTHS]
        found += [
            Setting(one.problem, one.cures, one.guard, biases=False)
            for one in list(found)
            if not PROBLEMS[one.problem].biased and all(CURES[cure].core for cure in one.cures)
        ]
    return found
