"""The optimizer step about to be taken: all that a remedy may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grad_callbacks._utils.optimizers import is_fused
from grad_callbacks.measurement import Layers, PendingReading, Reading, StepPlan
from grad_callbacks.measurement.norms import l2_norms
from grad_callbacks.measurement.sharding import sum_over_processes
from grad_callbacks.treatment.step.learning_rate import LearningRate
from grad_callbacks.treatment.step.run_state import RunState
from grad_callbacks.treatment.step.snapshots import Snapshots


class OptimizerStep:
    """The optimizer step about to be taken.

    Its methods work on the device and never wait for it. :attr:`reading` and :attr:`norm` are numbers on the host:
    using them before the step is taken waits for the device.

    Args:
        incoming: The step's gradients, as they were before any remedy.
        optimizer: Takes the step.
        learning_rate: The learning rate of the optimizer.
        loss_scale: The factor that the gradients are still multiplied with.
        under_scaler: A loss scaler is at work: it skips steps that overflow.
        on_device: Leave every decision to the device instead of reading it on the host.

    Attributes:
        learning_rate: The learning rate of its optimizer.
        changed_norm: The global norm after what remedies did so far, a scalar; None while it is as measured.
        norms_on_device: The norm of each parameter's gradient after that, up to a common factor, shape
            ``(parameters,)``.
        loss_scale: The factor that the gradients are still multiplied with.
        run_state: The state of the run at this step; None where it is not known.
        is_skipped: True once the host has decided that the step will not be taken.
        is_taken: True once the step has been taken: acting on it comes too late and does nothing.
    """

    def __init__(
        self,
        incoming: PendingReading,
        optimizer: torch.optim.Optimizer,
        learning_rate: LearningRate,
        loss_scale: float | Tensor = 1.0,
        under_scaler: bool = False,
        on_device: bool = False,
    ) -> None:
        self.learning_rate = learning_rate
        self.changed_norm: Tensor | None = None
        self.norms_on_device = incoming.measurement.norms
        self.loss_scale = loss_scale
        self.run_state: RunState | None = None
        self.is_skipped = False
        self.is_taken = False
        self._incoming = incoming
        self._measurement = incoming.measurement
        self._optimizer = optimizer
        self._under_scaler = under_scaler
        self._on_device = on_device
        self._coefficient: Tensor | None = None  # what the gradients are still to be multiplied with
        self._found_inf: Tensor | None = None

    @property
    def reading(self) -> Reading:
        """Its gradients, as they were before any remedy."""
        return self._incoming.reading

    @property
    def norm_on_device(self) -> Tensor:
        """The global norm after what remedies did so far, a scalar."""
        return self._measurement.norm if self.changed_norm is None else self.changed_norm

    @norm_on_device.setter
    def norm_on_device(self, norm: Tensor) -> None:
        self.changed_norm = norm

    @property
    def norm(self) -> float:
        """The global norm after what remedies did so far."""
        return float(self.norm_on_device)

    @property
    def snapshots(self) -> Snapshots | None:
        """Earlier states to go back to; None where none are taken."""
        return None if self.run_state is None else self.run_state.snapshots

    @property
    def plan(self) -> StepPlan:
        """The numbers with which the optimizer takes it."""
        return self._incoming.plan

    @property
    def layers(self) -> Layers:
        """The layers whose gradients it takes."""
        return self._measurement.layers

    def gradients(self) -> list[Tensor | None]:
        """This process's part of each parameter's gradient after what remedies did so far (see ``Layers.gradients``).

        Under a loss scaler that leaves the unscaling to the optimizer they are multiplied with :attr:`loss_scale`.
        """
        self._apply_coefficient()
        return self.layers.gradients()

    def limit_norm(self, max_norm: float | Tensor) -> Tensor:
        """Rescale all gradients together so that their global norm is at most ``max_norm``.

        A norm that is not finite is left alone: no factor makes it finite.

        Returns:
            Whether they were rescaled, a scalar.
        """
        norm = self.norm_on_device
        if self.is_taken:
            return _no(norm)
        coefficient = torch.clamp(max_norm / norm, max=1.0).where(torch.isfinite(norm), torch.ones_like(norm))
        self.multiply(coefficient)
        return coefficient < 1.0

    @torch.no_grad()
    def multiply(self, coefficient: float | Tensor) -> None:
        """Multiply all gradients with ``coefficient``."""
        if self.is_taken:
            return
        self.norm_on_device = self.norm_on_device * coefficient
        if self._on_device:
            pending = coefficient if self._coefficient is None else self._coefficient * coefficient
            self._coefficient = torch.as_tensor(pending)
        elif (factor := float(coefficient)) != 1.0:
            torch._foreach_mul_(self._gradients(), factor)

    @torch.no_grad()
    def multiply_each(self, factors: Sequence[Tensor | None]) -> Tensor:
        """Multiply each parameter's gradient with a factor of its own.

        The norm is measured again afterwards; where parameters are sharded that is a second collective.

        Args:
            factors: For each parameter a tensor that broadcasts to its gradient (see :meth:`gradients`); None leaves
                it alone.

        Returns:
            Whether the norm has changed, a scalar.
        """
        before = self.norm_on_device
        if self.is_taken:
            return _no(before)
        pairs = [(g, f) for g, f in zip(self.gradients(), factors, strict=True) if g is not None and f is not None]
        is_certain = self._on_device or self.layers.sharding is not None  # of a collective all processes take part
        if not is_certain and all(bool((factor == 1).all()) for _, factor in pairs):
            return _no(before)
        for gradient, factor in pairs:
            precision = torch.float64 if gradient.dtype == torch.float64 else torch.float32
            gradient.mul_(factor.to(gradient.device, precision, non_blocking=True))
        self.norm_on_device = self._unless_skipped(self._measure_again())
        return self.norm_on_device != before

    @torch.no_grad()
    def replace(self, values: Sequence[Tensor | None]) -> Tensor:
        """Replace the present gradients by others; the norm is measured again afterwards.

        Args:
            values: For each parameter one of its gradient's shape (see :meth:`gradients`); None leaves it alone.

        Returns:
            Whether the norm has changed, a scalar.
        """
        before = self.norm_on_device
        if self.is_taken:
            return _no(before)
        for gradient, value in zip(self.gradients(), values, strict=True):
            if gradient is not None and value is not None:
                gradient.copy_(value)
        self.norm_on_device = self._unless_skipped(self._measure_again())
        return self.norm_on_device != before

    @torch.no_grad()
    def forget_momentum(self) -> None:
        """Reset the momentum of SGD: it is made of gradients of another scale."""
        for state in self._optimizer.state.values():
            if isinstance(state, Mapping) and isinstance(buffer := state.get("momentum_buffer"), Tensor):
                buffer.zero_()

    @torch.no_grad()
    def limit_values(self, max_value: float) -> Tensor:
        """Clamp every gradient entry to ``[-max_value, max_value]`` (complex entries: real and imaginary part).

        A clamp changes each entry differently, so the norm is measured again afterwards; where parameters are sharded
        that is a second collective.

        Returns:
            Whether the norm has changed, a scalar.
        """
        if self.is_taken:
            return _no(self.norm_on_device)
        self._apply_coefficient()
        before, gradients = self.norm_on_device, self._gradients()
        if not self._on_device and not (before > max_value and torch.isfinite(before)):
            return _no(before)  # no entry can be beyond the limit
        if isinstance(self.loss_scale, Tensor):
            _multiply(gradients, self.loss_scale.reciprocal())
            _clamp(gradients, max_value)
            _multiply(gradients, self.loss_scale)
        else:
            _clamp(gradients, max_value * self.loss_scale)
        self.norm_on_device = self._unless_skipped(self._measure_again())
        return self.norm_on_device < before

    @torch.no_grad()
    def skip(self) -> None:
        """Make the step an exact no-op: no momentum, no decay, no step count."""
        if self.is_taken:
            return
        self.is_skipped = True
        self.norm_on_device = torch.zeros_like(self.norm_on_device)
        still_scaled = isinstance(self.loss_scale, Tensor) or self.loss_scale != 1.0
        if not (self._under_scaler and still_scaled):
            for parameter in self._measurement.layers.parameters:
                parameter.grad = None
        elif gradients := [gradient for gradient in self._gradients() if gradient.numel()]:
            # The scaler has yet to look at these gradients: it skips when one of them is infinite.
            gradients[0].fill_(torch.inf)

    @torch.no_grad()
    def skip_if_nonfinite(self) -> Tensor:
        """Skip the step if a gradient entry is NaN or infinite; return whether it is, a scalar."""
        bad = ~torch.isfinite(self._measurement.norm)
        if not self._on_device:
            if bad:
                self.skip()
        elif not self.is_taken:
            self._found_inf = bad.float()
            self.norm_on_device = self._unless_skipped(self.norm_on_device)
        return bad

    @torch.no_grad()
    def commit(self) -> None:
        """Hand over to the optimizer the decisions that were left to the device. Called once, after all remedies."""
        if self._found_inf is not None and not self._under_scaler:  # a scaler brings its own
            self._optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]
        if self._coefficient is not None and is_fused(self._optimizer) and not self._under_scaler:
            # The fused kernel divides by this on its way, which saves a pass over the gradients.
            self._optimizer.grad_scale = self._coefficient.float().reciprocal()  # type: ignore[attr-defined]
            self._coefficient = None
        self._apply_coefficient()

    def after(self) -> None:
        """Take back what :meth:`commit` handed over: the optimizer has used it."""
        self.is_taken = True
        if not self._under_scaler:
            for name in ("grad_scale", "found_inf"):
                self._optimizer.__dict__.pop(name, None)

    def _apply_coefficient(self) -> None:
        if self._coefficient is not None:
            _multiply(self._gradients(), self._coefficient)
            self._coefficient = None

    def _unless_skipped(self, norm: Tensor) -> Tensor:
        return norm if self._found_inf is None else norm.where(self._found_inf == 0, torch.zeros_like(norm))

    def _measure_again(self) -> Tensor:
        layers = self._measurement.layers
        scale = self.loss_scale
        if isinstance(scale, Tensor):
            scale = scale.to(layers.device, non_blocking=layers.device.type == "cuda")
        squares = (l2_norms(layers.gradients(), layers.device) / scale) ** 2
        if layers.sharding is not None:
            squares = sum_over_processes(squares * layers.gradient_shares())
        self.norms_on_device = squares.sqrt()
        return squares.sum().sqrt()

    def _gradients(self) -> list[Tensor]:
        return [gradient for gradient in self._measurement.layers.gradients(to_change=True) if gradient is not None]


def _no(like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.bool)


def _multiply(gradients: list[Tensor], factor: Tensor) -> None:
    for device in {gradient.device for gradient in gradients}:  # a model may be spread over several
        mine = [gradient for gradient in gradients if gradient.device == device]
        torch._foreach_mul_(mine, factor.to(device, torch.float32, non_blocking=True))


def _clamp(gradients: list[Tensor], limit: float) -> None:
    torch._foreach_clamp_min_(gradients, -limit)
    torch._foreach_clamp_max_(gradients, limit)
