"""What a callback has found, as its users read it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from grad_callbacks._utils.extras import needs
from grad_callbacks.callbacks._notebook import display, fragment, shown_in_notebooks
from grad_callbacks.events import Alert, Intervention, Outcome
from grad_callbacks.reporting.closing import headline
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_series import StepSeries

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Findings:
    """Reads a record.

    Attributes:
        record: Alerts, interventions, history and loss, which the properties below read.
        step_series: The few numbers of each step that the pictures show.
    """

    record: Record
    step_series: StepSeries

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far, in order."""
        return self.record.alerts

    @property
    def interventions(self) -> list[Intervention]:
        """All interventions so far, in order; a monitor makes none."""
        return self.record.interventions

    @property
    def verdict(self) -> str:
        """What was wrong with the run (see :attr:`grad_callbacks.reporting.record.Record.verdict`)."""
        return self.record.verdict

    @property
    def outcome(self) -> Outcome:
        """How the run ended (see :attr:`grad_callbacks.reporting.record.Record.outcome`)."""
        return self.record.outcome

    @property
    def still_wrong(self) -> list[str]:
        """The kinds of alert that were still active at the last reading."""
        return self.record.still_wrong

    def history(self) -> pd.DataFrame:
        """Return one row per step and layer (see :meth:`grad_callbacks.reporting.record.Record.history`).

        ``step`` is ``trainer.global_step`` at ``on_before_optimizer_step``.
        """
        return self.record.history()

    def report(self) -> str:
        """Return verdict, alerts, interventions and the layers' profile as markdown."""
        return self.record.report()

    def plot(self) -> Figure:
        """Draw norm, learning rate and loss over steps, with alerts and interventions.

        Returns:
            A matplotlib figure: a notebook displays it, ``savefig`` writes it.

        Raises:
            ModuleNotFoundError: If matplotlib or pandas is not installed.
            ValueError: If no step was measured yet.
        """
        if self.record.is_empty or not self.step_series.norms():
            raise ValueError("there is nothing to plot yet: no step was measured")
        with needs("plots", f"{type(self).__name__}.plot()"):
            from grad_callbacks.tracking.run_page.pictures import steps_picture

            figure = steps_picture(self.step_series.to_frame(), self.alerts, self.interventions)
        return shown_in_notebooks(figure)

    def show(self) -> None:
        """Show verdict, summary and the norm's chart in a notebook; elsewhere print the report."""
        if not display(self, repr(self)):
            sys.stdout.write(f"{self.report()}\n")

    def __repr__(self) -> str:
        """Return verdict, steps read and settings."""
        found = "no step was read yet" if self.record.is_empty else headline(self.record)
        return f"<{type(self).__name__}: {found}; {self._settings()}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return fragment(type(self).__name__, self._settings(), self.record, self.step_series)

    def _settings(self) -> str:
        """The settings that matter, in words."""
        raise NotImplementedError
