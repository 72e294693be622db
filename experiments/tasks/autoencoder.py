"""Reconstruction of the inputs."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task


class Reconstruction(Task):
    """Trains an autoencoder with the mean squared error; logs ``train/loss``, ``val/loss`` and ``val/quality``.

    The quality of a run is the share of the inputs' variance that it reconstructs.

    Args:
        model: Maps inputs to outputs of the same shape.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
    """

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        inputs = batch[0]
        loss = nn.functional.mse_loss(self.model(inputs), inputs)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and quality."""
        self._judge(batch[0], self.model(batch[0]))

    def _judge(self, inputs: Tensor, outputs: Tensor) -> None:
        loss = nn.functional.mse_loss(outputs, inputs)
        quality = 1 - loss / inputs.var(dim=0, correction=0).mean()
        self.log_dict({"val/loss": loss, "val/quality": quality}, batch_size=len(inputs))


class Variational(Reconstruction):
    """Trains a variational autoencoder with its evidence bound (Kingma & Welling 2014).

    Args:
        model: Maps inputs to reconstruction, mean and log variance of the code.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        period: The divergence's weight is zero in the first half of every so many steps and one in the second, so that
            the loss jumps (Fu et al. 2019). ``None``: it is always one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        period: int | None = None,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.period = period

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        inputs = batch[0]
        outputs, mean, log_variance = self.model(inputs)
        error = 0.5 * (outputs - inputs).square().sum(dim=1).mean()
        divergence = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=1).mean()
        weighed = self.period is None or self.global_step % self.period >= self.period // 2
        loss: Tensor = error + divergence if weighed else error
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and quality."""
        self._judge(batch[0], self.model(batch[0])[0])
