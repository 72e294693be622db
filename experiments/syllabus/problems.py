"""The problems of the syllabus: one config each, and what of it is claimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["vanishing", "exploding"]
Net = Literal["mlp", "conv", "recurrent", "residual", "transformer"]


@dataclass(frozen=True)
class Problem:
    """A net that does not learn.

    Attributes:
        name: Of its file in ``conf/experiment/syllabus``.
        kind: What its gradient does.
        net: What kind of net it is.
        cause: The cause, as the text has it, in a few words.
        statement: What the text says of it.
        good: Final quality from which on the net counts as cured. Chance is .1 for digits, .25 for the order of
            symbols; a language model's is what it knows of the next character, 0 at chance.
        clears: Overrides that take away the initialisation's settings, for cures that bring another.
        product: The factor from the last layer to the first that the text computes; None: it computes none.
        biased: Whether it lies in the biases, so that there is no such net without any.
        at_start: Whether the gradient is ill before the first step. If not, the training makes it so.
    """

    name: str
    kind: Kind
    net: Net
    cause: str
    statement: str
    good: float = 0.9
    clears: tuple[str, ...] = ()
    product: float | None = None
    biased: bool = False
    at_start: bool = True


_FOUND = (
    Problem("sigmoid", "vanishing", "mlp", "saturating activation", "A sigmoid's small slope makes the error vanish."),
    Problem("tanh", "vanishing", "mlp", "activation and small weights", "So does tanh, whose slope is at most 1."),
    Problem(
        *("tanh_saturated", "vanishing", "mlp", "saturated units", "Where tanh is saturated, nothing comes through."),
        clears=("~init.bias",),
        biased=True,
    ),
    Problem("relu_default", "vanishing", "mlp", "small weights", "A poor initialisation makes the error vanish."),
    Problem(
        *("chain_tenth", "vanishing", "mlp", "chain rule", "A factor of .1 per layer is 1e-50 over 50 layers."),
        clears=("~init.gain",),
        product=0.1**50,
    ),
    Problem("conv_sigmoid", "vanishing", "conv", "saturating activation", "Sigmoids do it to convolutions, too."),
    Problem(
        *("recurrent_forgets", "vanishing", "recurrent", "chain rule over time"),
        "Over the steps of a sequence the chain rule is a product, too, and vanishes.",
    ),
    Problem("large_weights", "exploding", "mlp", "large weights", "Large weights make the error explode."),
    Problem(
        *("chain_ten", "exploding", "mlp", "chain rule", "A factor of 10 per layer is 1e50 over 50 layers."),
        clears=("~init.gain",),
        product=10.0**50,
    ),
    Problem("conv_large", "exploding", "conv", "large weights", "Large weights do it to convolutions, too."),
    Problem(
        *("residual_unscaled", "exploding", "residual", "sum of branches"),
        "Residual branches that are added at full size double the variance at each block.",
    ),
    Problem(
        *("high_rate", "exploding", "mlp", "learning rate"),
        "Too high a learning rate makes a well initialised net explode.",
        at_start=False,
    ),
    Problem(
        *("recurrent_explodes", "exploding", "recurrent", "chain rule over time"),
        "Over the steps of a sequence the chain rule is a product, too, and explodes.",
        at_start=False,
    ),
    Problem(
        *("transformer_rate", "exploding", "transformer", "learning rate"),
        "Too high a learning rate makes a transformer explode, its residual connections and layer norms all the same.",
        good=0.35,
        at_start=False,
    ),
)
PROBLEMS = {problem.name: problem for problem in _FOUND}
