"""The repair scoreboard in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.scoreboard.repair.scoring import Score
from experiments.scoreboard.repair.treatments import OURS
from experiments.scoreboard.table import number


def repair_table(scores: Sequence[Score]) -> Table:
    """Return one row per treatment.

    Columns: share of failing runs repaired, over all and of each kind; the least and the greatest share of a seed;
    quality gained; how many times as long a training takes; healthy runs harmed; healthy runs that a remedy touched;
    runs that it could not train.
    """
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("treatment")
    for head in ["rep", "van", "expl", "nonf", "seeds", "gain", "time", "harm", "touch", "ref"]:
        table.add_column(head, justify="right", no_wrap=True)
    for one in scores:
        m = one.metrics()
        shares = ("repaired", "repaired_vanishing", "repaired_exploding", "repaired_nonfinite")
        table.add_row(
            f"[bold]{one.treatment}[/bold]" if one.treatment == OURS else one.treatment,
            *(number(m[name], ".2f") for name in shares),
            f"{number(m['repaired_low'], '.2f')}-{number(m['repaired_high'], '.2f')}",
            number(m["quality_gained"], ".2f"),
            number(m["time_ratio"], ".2f"),
            f"{m['harmed']:.0f}/{m['healthy_runs']:.0f}",
            f"{m['touched']:.0f}",
            f"{m['refused']:.0f}",
        )
    return table


def tell_failures(console: Console, one: Score) -> None:
    """Print what a treatment has not repaired, what it has harmed and what it could not train, by name."""
    for result in ("not repaired", "harmed", "refused"):
        found = [verdict for verdict in one.verdicts if verdict.result == result]
        if found:
            console.print(f"[bold]{result}[/bold] ({len(found)})")
        for verdict in found:
            outcome = verdict.outcome
            told = outcome.error or f"{', '.join(outcome.alerted) or 'no alert'}; {_counted(outcome.remedies)}"
            about = f" ({verdict.kind})" if verdict.kind else ""
            where = f"{outcome.scenario}/{outcome.seed}{about}"
            console.print(
                f"  {where}: {verdict.before:.2f} to {verdict.after:.2f}; {told}", highlight=False, soft_wrap=True
            )


def _counted(remedies: Sequence[str]) -> str:
    counts = {name: remedies.count(name) for name in dict.fromkeys(remedies)}
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no remedy"
