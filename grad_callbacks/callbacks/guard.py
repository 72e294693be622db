"""GradientGuard: a GradientMonitor that also treats what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grad_callbacks._utils.lightning import LightningModule, Trainer
from grad_callbacks.callbacks.monitor import GradientMonitor
from grad_callbacks.events import Alert, TrialResult
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.prescription.presets import DEFAULT_PLAN
from grad_callbacks.treatment.step.snapshot_store import memory_limit
from grad_callbacks.treatment.trial import Trial


class GradientGuard(GradientMonitor):
    """Watches the gradients like :class:`GradientMonitor`, and applies remedies when an alert comes.

    A remedy acts in the very step that raised the alert; on a GPU, whose numbers come later, from the next step on,
    except that non-finite steps are skipped at once. By default

    * an initialisation that lets no signal or error through is replaced before the first step (``Reinitialize``),
      unless the weights look trained;
    * a non-finite gradient is skipped (``SkipStep``); if an operation of the loss has no derivative, batch after batch,
      it is taken for zero there and the rest of the loss is learned, and what one inside the model leaves undefined is
      replaced (``MaskUndefined``); if nothing is finite any more for another reason, or weights are not, the run goes
      back to a snapshot in memory (``Rollback``);
    * inputs that come 30 times as large as before, in another unit, are divided (``RescaleInputs``), modules whose
      numbers do not fit into 16 bits are run in float32 (``FullPrecision``), and SGD on raw inputs takes the steps that
      it would take on standardised ones (``StandardizeInputs``);
    * an exploding gradient is clipped by norm (``ClipNorm``); if the loss suffers, or the rate is to blame, the run
      goes back, and on at a lower rate;
    * a post-norm transformer that needed a warm-up begins again with one (``Warmup``);
    * besides, a run under SGD that has learned nothing yet goes on with steps like Adam's (``AdaptiveStep``).

    A run without alerts is not touched: its weights are the same to the bit. Four snapshots at most are kept of
    weights, buffers, optimizer state and averages of the weights, 4 GiB in all: in memory as far as ``memory`` allows,
    the rest in temporary files. Checkpoints do not hold them: a resumed run goes back to its checkpoint at the
    earliest. ``AdaptiveStep`` keeps two numbers per weight once it is switched on.

    If the Trainer clips by itself (``gradient_clip_val``), clipping remedies are left out.

    Args:
        prescription: For each kind of alert the remedies to apply, in order (see
            :class:`~grad_callbacks.treatment.prescription.prescription.Prescription`), as objects or plain values:
            ``{"exploding": [ClipNorm(1.0), ReduceLR(0.5)]}`` and
            ``{"exploding": [{"ClipNorm": 1.0}, {"ReduceLR": {"factor": 0.5}}]}`` say the same. Or a preset's name:
            ``"full"``, the default; ``"gentle"``, which only clips, lowers the rate and skips; or ``"observe"``.
        every_n_steps: Measure every so many optimizer steps; what happens between is not seen and not
            treated, except by remedies that are already switched on.
        rules: As for :class:`GradientMonitor`.
        on_alert: As for :class:`GradientMonitor`.
        diagnose: As for :class:`GradientMonitor`.
        trial: Try the remedies out when an alert comes, and keep the one that does best: a
            :class:`~grad_callbacks.treatment.trial.Trial`, its arguments by name (``{"steps": 20}``), or True.
        memory: What all snapshots together may take in memory: a share of weights, gradients and optimizer state as a
            float, or bytes as an int. By default a quarter, at least 64 MiB; on the CPU of one process the rest goes to
            temporary files (in ``$TMPDIR``). For an accelerator, and in distributed runs, 4 GiB of the host's memory;
            where four snapshots take more, none is taken, and a warning says so.
        progress_bar: As for :class:`GradientMonitor`.
        summary: As for :class:`GradientMonitor`.

    Raises:
        ValueError: If an argument is wrong; the message names it.

    Example::

        from lightning.pytorch import Trainer
        from grad_callbacks import GradientGuard

        trainer = Trainer(callbacks=[GradientGuard()])

    Attributes:
        prescription: What answers the alerts; each optimizer has its own copy.
        trial: How remedies are tried out; None if they are not.
        memory: As given.
    """

    def __init__(
        self,
        prescription: Mapping[str, Sequence[Any]] | str | None = None,
        every_n_steps: int = 1,
        rules: Sequence[Any] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        diagnose: bool = True,
        trial: Trial | Mapping[str, Any] | bool | None = None,
        memory: float | None = None,
        progress_bar: bool = True,
        summary: bool = True,
    ) -> None:
        shown = {"progress_bar": progress_bar, "summary": summary}
        super().__init__(every_n_steps=every_n_steps, rules=rules, on_alert=on_alert, diagnose=diagnose, **shown)
        self._preset = prescription if isinstance(prescription, str) else "full" if prescription is None else ""
        self.prescription = Prescription(DEFAULT_PLAN if prescription is None else prescription)
        self.prescription.prepare_for({rule.kind for rule in self.rules})
        self.trial = Trial.of(trial)
        self.memory = memory_limit(memory)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave clipping to a Trainer that clips."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self.prescription.left_out = ()
        if trainer.gradient_clip_val:
            why = f"the Trainer clips already, gradient_clip_val={trainer.gradient_clip_val}"
            self.prescription.leave_out("clips", why=why)

    @property
    def trials(self) -> list[TrialResult]:
        """What came of trying out remedies, in order."""
        return self.record.trials

    @property
    def nbytes(self) -> int:
        """Bytes that snapshots, and batches kept for trials, take at the moment; nothing after the training."""
        return sum(engine.nbytes for engine in self._engines)

    def _treatment(self, trainer: Trainer) -> dict[str, Any]:
        trial = self.trial if len(trainer.optimizers) == 1 else None  # of several, one may lose what another gains
        known = {"prescription": self.prescription, "trial": trial, "memory": self.memory}
        return {**known, "averages": trainer.callbacks}  # type: ignore[attr-defined]  # of the Trainer

    def _settings(self) -> str:
        """Rules and remedies, in words."""
        if self._preset:
            return f"{super()._settings()}; remedies of the preset {self._preset!r}"
        names = dict.fromkeys(type(each).__name__ for listed in self.prescription.remedies.values() for each in listed)
        return f"{super()._settings()}; remedies {', '.join(names) or 'none'}"
