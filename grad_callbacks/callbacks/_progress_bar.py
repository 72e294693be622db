"""The global norm and the alerts in the Trainer's progress bar, of tqdm and of rich."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grad_callbacks._utils.lightning import Trainer
from grad_callbacks.reporting.step_result import StepResult

_HOOK = "get_metrics"  # what a progress bar asks for its numbers, only when it redraws itself


class ProgressBarNumbers:
    """Adds ``grad_norm`` and ``gradients`` to the progress bar while a training is under way.

    The numbers are those that were judged last: nobody waits for a device. With several optimizers the norms are
    ``grad_norm_0``, ``grad_norm_1`` and so on.
    """

    def __init__(self) -> None:
        self._norms: dict[int, float] = {}  # by optimizer
        self._bar: Any = None

    def note(self, index: int, result: StepResult) -> None:
        """Keep the norm of an optimizer's latest step."""
        self._norms[index] = result.reading.norm

    def begin(self, trainer: Trainer, found: Callable[[], str]) -> None:
        """Add the numbers to what the bar of this Trainer shows, if it has one that nobody has added them to yet."""
        bar = trainer.progress_bar_callback
        if bar is None or not trainer.is_global_zero or isinstance(vars(bar).get(_HOOK), _WithNumbers):
            return
        self._bar = bar
        setattr(bar, _HOOK, _WithNumbers(getattr(bar, _HOOK), self, found))

    def end(self) -> None:
        """Leave the bar as it was."""
        if self._bar is not None:
            mine = vars(self._bar).pop(_HOOK, None)
            if isinstance(mine, _WithNumbers) and not hasattr(mine.inner, "__self__"):
                setattr(self._bar, _HOOK, mine.inner)  # somebody's own function, no method of the class
        self._bar, self._norms = None, {}

    def numbers(self) -> dict[str, str]:
        """Return the norms, as they are shown."""
        several = len(self._norms) > 1
        return {f"grad_norm{f'_{index}' if several else ''}": f"{norm:.3g}" for index, norm in self._norms.items()}


class _WithNumbers:
    """Stands in for a bar's ``get_metrics``."""

    def __init__(self, inner: Callable[..., dict[str, Any]], owner: ProgressBarNumbers, found: Callable[[], str]):
        self.inner, self._owner, self._found = inner, owner, found

    def __call__(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        return {**self.inner(*arguments, **named), **self._owner.numbers(), "gradients": self._found()}
