"""The cures of the syllabus, each as the overrides that bring it into a net of each kind, or why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from experiments.settings import ConfigError
from experiments.syllabus.problems import Net, Problem

INITS = ("he", "xavier", "orthogonal", "lsuv", "fixup")
NO_NORM = "what is normal at one step of a sequence is not at the next; these normalisations are for layers"
GATED = "a recurrent net's activation is part of its cell: tanh, LSTM or GRU"
OWN_INIT = "recurrent weights are square and run at every step: they have initialisations of their own"
CARRIED = "a recurrent net carries its state on; the residual connection over time is the LSTM's"
HAS_NORM = "a transformer has layer norms of its own; where they stand is another cure"
HAS_SKIPS = "a transformer has residual connections already"
HAS_GELU = "a transformer's activations stand in its feed-forward nets only, beside the residual stream"
RESIDUAL = "the net is residual already"


@dataclass(frozen=True)
class Cure:
    """Something to try against a problem.

    Attributes:
        name: Unique.
        title: In words.
        changes: The overrides, for each kind of net.
        refused: Why it makes no sense, for the other kinds.
        init: The initialisation that it brings, if any: the problem's settings of another one are taken away first.
        rate: Multiplies the learning rate.
        published: The callback of another's remedy (see :data:`experiments.scoreboard.repair.published.PUBLISHED`).
        core: Whether it is tried without biases, too.
    """

    name: str
    title: str
    changes: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str] = field(default_factory=dict)
    init: str = ""
    rate: float = 1.0
    published: str = ""
    core: bool = False

    def overrides(self, problem: Problem) -> list[str]:
        """Return the overrides that bring it into a problem's net.

        Raises:
            ConfigError: If it makes no sense there; the message says why.
        """
        net: Net = problem.net
        if net in self.refused or net not in self.changes:
            reason = self.refused.get(net, f"it is not for nets of the kind {net}")
            raise ConfigError(f"{self.title} in {problem.name}: {reason}")
        init = [*([f"init={self.init}"] if self.init else []), *(problem.clears if self.init else ())]
        return [*self.changes[net], *init]


NETS = ("mlp", "conv", "residual", "recurrent", "transformer")
LAYERED = ("mlp", "conv", "residual")


def _activation(name: str, title: str, init: str = "he", core: bool = False) -> Cure:
    refused = {"recurrent": GATED, "transformer": HAS_GELU}
    return Cure(name, title, dict.fromkeys(LAYERED, (f"activation={name}",)), refused, init, core=core)


def _norm(name: str, title: str, core: bool = False) -> Cure:
    changes = {"mlp": (f"norm={name}",), "residual": (f"norm={name}",), "conv": (f"norm={name}", "+model.norm=${norm}")}
    return Cure(f"{name}_norm", title, changes, {"recurrent": NO_NORM, "transformer": HAS_NORM}, core=core)


def _init(name: str, title: str, core: bool = False) -> Cure:
    changes = dict.fromkeys((*LAYERED, "transformer"), ())
    return Cure(f"init_{name}", title, changes, {"recurrent": OWN_INIT}, name, core=core)


def _clip(algorithm: str, title: str) -> Cure:
    changes = ("+trainer.gradient_clip_val=1.0", f"+trainer.gradient_clip_algorithm={algorithm}")
    return Cure(f"clip_{algorithm}", title, dict.fromkeys(NETS, changes), core=True)


_FOUND = (
    _activation("relu", "ReLU with He's weights", core=True),
    _activation("leaky_relu", "Leaky ReLU with He's weights"),
    _activation("prelu", "PReLU with He's weights"),
    _activation("gelu", "GELU with He's weights"),
    _activation("elu", "ELU with He's weights"),
    _activation("selu", "SELU with Xavier's weights", "xavier"),
    _activation("silu", "SiLU with He's weights"),
    _activation("tanh", "tanh with Xavier's weights", "xavier"),
    _norm("batch", "batch normalisation", core=True),
    _norm("layer", "layer normalisation"),
    _norm("group", "group normalisation"),
    _norm("rms", "RMS normalisation"),
    _init("he", "He's initialisation", core=True),
    _init("xavier", "Xavier's initialisation"),
    _init("orthogonal", "orthogonal weights"),
    _init("lsuv", "LSUV"),
    Cure("fixup", "Fixup", {"residual": ()}, dict.fromkeys(("mlp", "conv"), "it is for residual branches"), "fixup"),
    Cure(
        *("residual", "residual connections"),
        {
            "mlp": ("model.residual=true",),
            "conv": ("model=residual_convolutional", "~model.depth", "model.blocks=4"),
        },
        {"recurrent": CARRIED, "transformer": HAS_SKIPS, "residual": RESIDUAL},
        core=True,
    ),
    Cure(
        *("scaled", "branches scaled by 1/sqrt(blocks)", {"residual": ("model.branch_scale=null",)}),
        dict.fromkeys(("mlp", "conv", "recurrent", "transformer"), "there are no branches to scale"),
    ),
    Cure("post_norm", "layer norm after the sums", {"transformer": ("model.pre_norm=false",)}),
    Cure("orthogonal", "orthogonal recurrent weights", {"recurrent": ("model.recurrent_init=orthogonal",)}),
    Cure("gru", "GRU", {"recurrent": ("model.cell=gru", "model.recurrent_init=default")}),
    Cure("lstm", "LSTM", {"recurrent": ("model.cell=lstm", "model.recurrent_init=default")}),
    _clip("value", "clipping by value in [-1, 1]"),
    _clip("norm", "clipping by norm at 1"),
    Cure("agc", "adaptive clipping (AGC, .01)", dict.fromkeys(NETS, ()), published="agc_from_start"),
    Cure("low_rate", "a tenth of the learning rate", dict.fromkeys(NETS, ()), rate=0.1, core=True),
    Cure("warmup", "warm-up over 100 steps", dict.fromkeys(NETS, ("schedule=warmup", "schedule.rise=100"))),
    *(
        Cure(f"depth_{depth}", f"{depth} layers", {"mlp": (f"model.depth={depth}",)})
        for depth in (2, 5, 10, 20, 30, 60)
    ),
)
CURES = {cure.name: cure for cure in _FOUND}
