"""The tables, in markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from experiments.scoreboard.language_model.scoring import COMPARED, FAILS, HEALTHY, LOST, REPAIRED, WINDOW, Label, Row
from experiments.scoreboard.language_model.treatments import NONE, TREATMENTS

HEAD = f"""# Language models

Written by `python -m experiments.scoreboard language_model`. Small models in the styles of GPT and Llama (90,000 and
460,000 weights) are trained for 200 to 300 steps on the prose and the code that ship with Python, one byte a token:
AdamW, warm-up, cosine.

- *Twin*: the same run without what hurts it and without treatment. Its loss is the mean of the last two validations, in
  nats a byte. All other losses are told as nats above it.
- *Failing*: more than {FAILS} above its twin without treatment. *Healthy*: up to {HEALTHY}. Between: neither.
- *Repaired*: up to {REPAIRED} above the twin.
- *Told wrongly*: the guard says `repaired` more than {REPAIRED} above the twin, or `healthy` more than {FAILS}.
- Steps are the optimizer's: with Muon, which works beside AdamW, two a batch.
- *Tune* and *score*: the half a setting belongs to, by a hash of its name. Rules may be tuned on the first only.
"""
SECTIONS: dict[Label, str] = {
    "failing": "*Delay*: steps from where the setting is hurt to the first alert. *Lead*: from there to where the "
    f"untreated training loss is {LOST} above the twin's over {WINDOW} batches; – where it never is.",
    "unsettled": "Hurt a little.",
    "healthy": "*Same bits*: the guard leaves the very weights of the run without it.",
}


def document(rows: Sequence[Row], title: str) -> str:
    """Return the whole file.

    Args:
        rows: Of the settings, all with the same treatments.
        title: What was run: half and seeds.
    """
    names = list(rows[0].results) if rows else [NONE]
    legend = "\n".join(f"- `{name}`: {TREATMENTS[name].what}" for name in names)
    parts = [HEAD, f"## {title}\n", legend + "\n"]
    parts += [_summary(rows, split, names) for split in ("tune", "score")]
    for label, what in SECTIONS.items():
        found = [row for row in rows if row.label == label]
        if found:
            parts += [f"### {label.capitalize()} settings ({len(found)})\n", what + "\n", _costs(found, names)]
            parts += [_alerts(found, [name for name in names if name in COMPARED])]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _summary(rows: Sequence[Row], split: str, names: Sequence[str]) -> str:
    mine = [row for row in rows if row.setting.split == split]
    failing = [row for row in mine if row.label == "failing"]
    healthy = [row for row in mine if row.label == "healthy"]
    if not failing and not healthy:
        return ""
    heads = ["treatment", "failing: mean", "worst", "repaired", "healthy: mean", "worst", "alerted", "same bits"]
    lines = []
    for name in names:
        costs = [row.cost(name) for row in failing]
        repaired = f"{sum(cost <= REPAIRED for cost in costs)}/{len(costs)}"
        wrong = str(sum(len(row.untrue(name)) for row in mine)) if name in COMPARED else "–"
        lines.append([f"`{name}`", _mean(costs), _worst(costs), repaired, *_harm(healthy, name), wrong])
    counts = f"The half named *{split}*: {len(failing)} failing settings and {len(healthy)} healthy ones.\n"
    return counts + "\n" + _table([*heads, "told wrongly"], lines)


def _harm(healthy: Sequence[Row], name: str) -> list[str]:
    costs = [row.cost(name) for row in healthy]
    if name not in COMPARED:
        return [_mean(costs), _worst(costs), "–", "–"]
    alerted, runs = sum(row.alerted(name) for row in healthy), sum(len(row.twins) for row in healthy)
    same = [row.unchanged(name) for row in healthy]
    told = "–" if None in same else f"{sum(count or 0 for count in same)}/{runs}"
    return [_mean(costs), _worst(costs), f"{alerted}/{runs}", told]


def _costs(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = [
        [f"`{row.setting.name}`", row.setting.split, f"{row.twin:.2f}", *(f"{row.cost(name):+.2f}" for name in names)]
        for row in rows
    ]
    return _table(["setting", "half", "twin", *(f"`{name}`" for name in names)], lines)


def _alerts(rows: Sequence[Row], guards: Sequence[str]) -> str:
    """One line for each setting and guard: alerts and remedies of the first seed, what was said of all."""
    heads = ["setting", "treatment", "alerts", "delay", "lead", "remedies", "outcome", "told wrongly", "same bits"]
    lines = []
    for row in rows:
        for name in guards:
            runs, same = row.results[name], row.unchanged(name)
            cells = [
                _listed([f"{kind} {step}" for step, kind, _ in runs[0].alerts]),
                _steps(row.delay(name)),
                _steps(row.lead(name)),
                _counted([remedy for _, remedy in runs[0].interventions]),
                ", ".join(dict.fromkeys("error" if run.error else run.outcome for run in runs)),
                "; ".join(row.untrue(name)) or "–",
                "–" if same is None else f"{same}/{len(runs)}",
            ]
            lines.append([f"`{row.setting.name}`", f"`{name}`", *cells])
    return _table(heads, lines) if guards else ""


def _listed(alerts: Sequence[str], most: int = 3) -> str:
    more = f" and {len(alerts) - most} more" if len(alerts) > most else ""
    return ", ".join(alerts[:most]) + more or "–"


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in Counter(names).items()) or "–"


def _steps(steps: float) -> str:
    return "–" if math.isnan(steps) else f"{steps:.0f}"


def _mean(costs: Sequence[float]) -> str:
    return f"{fmean(costs):+.2f}" if costs else "–"


def _worst(costs: Sequence[float]) -> str:
    return f"{max(costs):+.2f}" if costs else "–"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
