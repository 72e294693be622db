"""What is trained: a module, its data, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from grad_callbacks._utils.lightning import LightningDataModule


@dataclass
class Setup:
    """A training that has not begun. Cures change it in place.

    Attributes:
        module: A LightningModule, made anew.
        data: A DataModule, a loader, a pair of loaders for training and validation, or None where the module has its
            own loaders.
        callbacks: Of the Trainer, beside the monitor.
        trainer: Arguments of the Trainer.
        guard: Arguments of a guard that takes the monitor's place; None without.
        bounds_steps: Something keeps large gradients from the weights: an alert about them alone is no fault any more.
    """

    module: Any
    data: Any = None
    callbacks: list[Any] = field(default_factory=list)
    trainer: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] | None = None
    bounds_steps: bool = False

    @property
    def data_arguments(self) -> dict[str, Any]:
        """The data, as the Trainer's methods for training take them."""
        if self.data is None:
            return {}
        if _is_datamodule(self.data):
            return {"datamodule": self.data}
        if isinstance(self.data, tuple) and len(self.data) == 2:
            return {"train_dataloaders": self.data[0], "val_dataloaders": self.data[1]}
        return {"train_dataloaders": self.data}


class Source(Protocol):
    """Makes the same training as often as it is asked to; can be pickled."""

    @property
    def name(self) -> str:
        """Short name, for folders and runs."""
        ...

    def describe(self) -> dict[str, Any]:
        """All that decides what is made, in plain values."""
        ...

    def make(self, seed: int) -> Setup:
        """Make the training anew, with all random numbers seeded.

        Raises:
            ValueError: If it cannot be made; the message says why.
        """
        ...


def _is_datamodule(data: object) -> bool:
    return isinstance(data, LightningDataModule) or any(
        kind.__name__ == "LightningDataModule" for kind in type(data).__mro__
    )
