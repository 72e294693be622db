"""Skipping one step: the first one after a remedy was switched on."""

from __future__ import annotations

from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


class SkipNext:
    """Skips the first step after a remedy was switched on: its gradients come from the state before.

    A remedy with this mixin calls :meth:`skip_next_step` in ``engage`` and :meth:`_skips` in ``act``, and keeps
    ``_skip_next`` in its ``state_dict``.
    """

    _skip_next: bool = False

    def skip_next_step(self, skip: bool = True) -> None:
        """Skip the step that ``act`` sees next, which is the current one; or do not skip it after all."""
        self._skip_next = skip

    def _skips(self, step: OptimizerStep) -> bool:
        """Skip the step if it is the first one since the remedy was switched on; return whether it is."""
        skips, self._skip_next = self._skip_next, False
        if skips:
            step.skip()
        return skips
