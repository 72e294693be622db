"""The tables, in markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from experiments.scoreboard.language_model.scoring import COMPARED, FAILS, HEALTHY, LOST, REPAIRED, WINDOW, Label, Row
from experiments.scoreboard.language_model.treatments import NONE, TREATMENTS

COMMAND = "python -m experiments.scoreboard language_model"
HEAD = f"""# Language models

Small models in the styles of GPT and Llama (90,000 and 460,000 weights), trained for 200 to 300 steps on the prose and the
code that ship with Python, one byte a token: AdamW, warm-up, cosine. Written by `{COMMAND}`.

All numbers but *twin* are nats a byte above the unhurt twin: the same run without the fault and without treatment; the
mean of the last two validation losses. A setting is *failing* where it ends more than {FAILS} above its twin without
treatment, *healthy* up to {HEALTHY}; what lies between counts for neither. Which half a setting is in is decided by a hash of
its name. *Told wrongly* is where the guard says `repaired` more than {REPAIRED} above the twin, or `healthy` more than {FAILS}.
"""


def document(rows: Sequence[Row], title: str) -> str:
    """Return the whole file.

    Args:
        rows: Of the settings, all with the same treatments.
        title: What was run: half and seeds.
    """
    names = list(rows[0].results) if rows else [NONE]
    legend = "\n".join(f"- `{name}`: {TREATMENTS[name].what}" for name in names)
    parts = [HEAD, f"## {title}\n", legend + "\n", *_summary(rows, names)]
    for label, what in _SECTIONS.items():
        found = [row for row in rows if row.label == label]
        if found:
            parts += [f"### {label.capitalize()} settings ({len(found)})\n", what, "", _costs(found, names), ""]
            parts += [_alerts(found, [name for name in names if name in COMPARED]), ""]
    return "\n".join(parts).rstrip() + "\n"


_SECTIONS: dict[Label, str] = {
    "failing": f"*Lost*: the step from which on the untreated training loss is {LOST} above the twin's, over {WINDOW} batches.",
    "unsettled": "Hurt a little.",
    "healthy": "*Same bits*: the guard leaves the very weights of the run without it.",
}


def _summary(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    parts = []
    for split in ("tune", "score"):
        failing = [row for row in rows if row.label == "failing" and row.setting.split == split]
        healthy = [row for row in rows if row.label == "healthy" and row.setting.split == split]
        if not failing and not healthy:
            continue
        heads = ["treatment", "mean", "worst", "repaired", "healthy mean", "healthy worst", "alerted", "same bits"]
        lines = [[f"`{name}`", *_figures(failing, name), *_harm(healthy, name)] for name in names]
        counts = f"{len(failing)} failing settings, {len(healthy)} healthy ones."
        parts += [
            f"The half named *{split}*: {counts}\n",
            _table(
                [*heads, "told wrongly"],
                [[*line, _wrong([*failing, *healthy], name)] for line, name in zip(lines, names, strict=True)],
            ),
            "",
        ]
    return parts


def _figures(failing: Sequence[Row], name: str) -> list[str]:
    costs = [row.cost(name) for row in failing]
    repaired = sum(cost <= REPAIRED for cost in costs)
    return [_mean(costs), f"{max(costs):+.2f}" if costs else "–", f"{repaired}/{len(costs)}"]


def _harm(healthy: Sequence[Row], name: str) -> list[str]:
    costs, runs = [row.cost(name) for row in healthy], sum(len(row.twins) for row in healthy)
    told = [_mean(costs), f"{max(costs):+.2f}" if costs else "–"]
    if name not in COMPARED or not _can_compare(healthy, name):
        return [*told, "–", "–"]
    alerted, same = (
        sum(counts) for counts in zip(*[(r.alerted(name), r.unchanged(name)) for r in healthy], strict=True)
    )
    return [*told, f"{alerted}/{runs}", f"{same}/{runs}"]


def _can_compare(rows: Sequence[Row], name: str) -> bool:
    return bool(rows) and all(COMPARED[name] in row.results for row in rows)


def _wrong(rows: Sequence[Row], name: str) -> str:
    return str(sum(len(row.untrue(name)) for row in rows)) if name in COMPARED else "–"


def _costs(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = []
    for row in rows:
        costs = [f"{row.cost(name):+.2f}" for name in names]
        lines.append([f"`{row.setting.name}`", row.setting.split, f"{row.twin:.2f}", *costs])
    return _table(["setting", "half", "twin", *(f"`{name}`" for name in names)], lines)


def _alerts(rows: Sequence[Row], guards: Sequence[str]) -> str:
    heads = ["setting", "treatment", "alerts", "delay", "lead", "remedies", "outcome", "told wrongly", "same bits"]
    lines = []
    for row in rows:
        for name in guards:
            runs = row.results[name]
            same = f"{row.unchanged(name)}/{len(runs)}" if COMPARED[name] in row.results else "–"
            lines.append(
                [
                    f"`{row.setting.name}`",
                    f"`{name}`",
                    _listed(f"{kind} {step}" for step, kind, _ in runs[0].alerts),
                    _steps(row.delay(name)),
                    _steps(row.lead(name)),
                    _counted([r for _, r in runs[0].interventions]),
                    ", ".join(dict.fromkeys(run.error or run.outcome for run in runs)),
                    "; ".join(row.untrue(name)) or "–",
                    same,
                ]
            )
    return _table(heads, lines) if guards else ""


def _listed(alerts: object, most: int = 3) -> str:
    told = list(alerts)  # type: ignore[call-overload]
    return (", ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")) or "–"


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in Counter(names).items()) or "–"


def _steps(steps: float) -> str:
    return "–" if math.isnan(steps) else f"{steps:.0f}"


def _mean(costs: Sequence[float]) -> str:
    return f"{fmean(costs):+.2f}" if costs else "–"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
