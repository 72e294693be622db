"""What a callback has found, as its users read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grad_callbacks.events import Alert, Intervention, Outcome
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_series import StepSeries

if TYPE_CHECKING:
    import pandas as pd


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
