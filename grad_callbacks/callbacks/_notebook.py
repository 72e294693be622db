"""A run's findings in a notebook: one HTML fragment without script or network."""

from __future__ import annotations

from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from grad_callbacks.callbacks._norm_chart import norm_chart
from grad_callbacks.reporting.closing import closing_lines
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_series import StepSeries
from grad_callbacks.tracking.kinds import colour_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 72  # as notebooks draw figures by default

CALM = "#1b7f5c"  # the colour of a healthy verdict


def fragment(name: str, settings: str, record: Record, series: StepSeries) -> str:
    """Return verdict, summary and the chart of the norm; every text of the run is escaped.

    Args:
        name: Of the callback.
        settings: Rules and remedies, in words.
        record: Of the run.
        series: Its steps; the first optimizer's are drawn.
    """
    head, *rest = closing_lines(record)
    colour = CALM if record.verdict == "healthy" else colour_of(record.verdict)
    texts = "".join(f"<li>{escape(line)}</li>" for line in rest)
    chart = norm_chart(series.norms(), record.alerts, record.interventions)
    return (
        f'<div style="border-left:4px solid {colour};padding-left:10px">'
        f"<div><b>{escape(name)}</b>: {escape(head)}</div>"
        + (f"<ul>{texts}</ul>" if texts else "")
        + (f"<div>Global gradient norm over steps</div>{chart}" if chart else "")
        + f'<div style="color:#777777;font-size:smaller">{escape(settings)}</div></div>'
    )


def shown_in_notebooks(figure: Figure) -> Figure:
    """Let a notebook display a figure that ``pyplot`` does not know, as it does those that it knows."""

    def as_png() -> bytes:
        written = BytesIO()
        figure.savefig(written, format="png", dpi=PNG_DPI)
        return written.getvalue()

    cast(Any, figure)._repr_png_ = as_png
    return figure


def display(shown: object, text: str) -> bool:
    """Display an object if this is a notebook, and return True; False elsewhere, where ``text`` is for the console.

    Args:
        shown: Has ``_repr_html_``.
        text: Stands in for it where HTML cannot be shown.
    """
    try:
        from IPython import get_ipython
        from IPython.display import display as show
    except ImportError:
        return False
    shell, display_data = get_ipython(), cast(Any, show)  # not typed
    if shell is None or not hasattr(shell, "kernel"):
        return False
    display_data({"text/html": cast(Any, shown)._repr_html_(), "text/plain": text}, raw=True)
    return True
