"""Other weights to begin with."""

from __future__ import annotations

from typing import Any, ClassVar

from torch.utils.data import DataLoader

from grad_callbacks.callbacks._base import Callback
from grad_callbacks.callbacks._replay import StepReplay
from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure, Touches
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.fresh_weights import start_again
from grad_callbacks.treatment.remedies._support.initialisation import initialise
from grad_callbacks.treatment.remedies._support.weight_fill import Scheme

LINES = {
    "lsuv": "orthogonal weights, each layer scaled to outputs of unit size on a batch (LSUV), biases 0: "
    "`Reinitialize('lsuv')` of grad_callbacks does it",
    "he": "`nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')` for each layer, biases 0",
    "xavier": "`nn.init.xavier_normal_(layer.weight)` for each layer, biases 0",
    "orthogonal": "`nn.init.orthogonal_(layer.weight)` for each layer, biases 0",
}


class Initialisation(Cure):
    """Gives all layers fresh weights, as :class:`~grad_callbacks.Reinitialize` computes them.

    Args:
        scheme: As there.
    """

    slot: ClassVar[str] = "weights"
    touches: ClassVar[Touches] = "weights"

    def __init__(self, scheme: Scheme) -> None:
        self.scheme: Scheme = scheme
        self.name = "LSUV initialisation" if scheme == "lsuv" else f"{scheme.capitalize()} initialisation"

    def applies(self, ill: Attempt) -> bool:
        """True if there are layers; ``"lsuv"`` needs a batch that can be run again."""
        known = ill.inspection
        return (bool(known.layers) or known.compiled) and not (self.scheme == "lsuv" and known.is_manual)

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Draw the weights now, or with the first batch."""
        if self.scheme == "lsuv":
            setup.callbacks.insert(0, _WithFirstBatch())
        else:
            kinds = [layer.activation for layer in known.layers if layer.activation]
            start_again(setup.module, self.scheme, known.activations.get(kinds[0], "ReLU") if kinds else "ReLU")
        return [LINES[self.scheme]]


class _WithFirstBatch(Callback):
    """Initialises on a first batch, unless the weights that are there let signal and error through better."""

    def __init__(self) -> None:
        self._done = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take a batch of the loader, before the monitor begins to measure; the loader begins anew afterwards."""
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            return
        generators = {one for one in (loader.generator, getattr(loader.sampler, "generator", None)) if one is not None}
        states = [(one, one.get_state()) for one in generators]
        with undisturbed(pl_module):
            batch = next(iter(loader))
        for one, state in states:
            one.set_state(state)
        self._initialise(trainer, pl_module, trainer.strategy.batch_to_device(batch), 0)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Take the first batch, where there is no plain loader."""
        if not self._done:
            self._initialise(trainer, pl_module, batch, batch_idx)

    def _initialise(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._done = True
        initialise(
            pl_module, "lsuv", StepReplay(trainer, pl_module).batch(batch, batch_idx, trainer.optimizers[0]).replay
        )
