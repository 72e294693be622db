"""The table of differences between vanishing and exploding, each cell from runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import median

from experiments.syllabus.claims import Setting
from experiments.syllabus.cures import CURES
from experiments.syllabus.judging import Many, Results, judge
from experiments.syllabus.problems import PROBLEMS, Problem
from experiments.syllabus.words import link, number, share, table

KINDS = ("vanishing", "exploding")
Lost = list[tuple[Problem, Many]]


def differences(results: Results) -> str:
    """Return the table, with the runs of the full nets, biases and all."""
    lost = {kind: [(p, results[Setting(p.name)]) for p in _trained(kind, results)] for kind in KINDS}
    rows = [[title, *(cell(lost[kind]) for kind in KINDS)] for title, cell in CELLS]
    rows += [["cured by", *(_cured(kind, results, held=True) for kind in KINDS)]]
    rows += [["not cured by", *(_cured(kind, results, held=False) for kind in KINDS)]]
    rows += [["quality under `GradientGuard()`", *(_guarded(kind, results) for kind in KINDS)]]
    return table(["", *(f"[{kind}](#{kind})" for kind in KINDS)], rows)


def _trained(kind: str, results: Results) -> list[Problem]:
    return [problem for problem in PROBLEMS.values() if problem.kind == kind and Setting(problem.name) in results]


def _listed(lost: Lost, measure: Callable[[Many], float]) -> str:
    return ", ".join(f"{link(problem.name)} {number(measure(many))}" for problem, many in lost) or "–"


def _factor(lost: Lost) -> str:
    return _listed([(p, many) for p, many in lost if p.at_start], lambda many: many.middle("decay"))


def _ratio(lost: Lost) -> str:
    return _listed([(p, many) for p, many in lost if p.at_start], lambda many: many.middle("error_ratio"))


def _place(lost: Lost) -> str:
    """Say in how many runs the extreme error is that of the first station, the farthest from the loss."""
    runs = [(p.kind, o.measured["errors"]) for p, many in lost if p.at_start for o in many.outcomes]
    first = sum(errors[0] == (min if kind == "vanishing" else max)(errors) for kind, errors in runs)
    size = "smallest" if lost and lost[0][0].kind == "vanishing" else "largest"
    return f"{size} in the first layer or step in {first} of {len(runs)} runs that start ill"


def _weights(lost: Lost) -> str:
    runs = [outcome.measured for _, many in lost for outcome in many.outcomes]
    whole = [run for run in runs if math.isfinite(run["moved_first"]) and math.isfinite(run["moved_last"])]
    first, last = (_middle(run[name] for run in whole) for name in ("moved_first", "moved_last"))
    broken = len(runs) - len(whole)
    told = [
        f"over the run the first weights move by {number(first)} of their norm, the last by {number(last)} (medians)"
    ]
    told = (told if whole else []) + ([f"not finite at the end in {broken} of {len(runs)} runs"] if broken else [])
    return "; ".join(told)


def _norm(lost: Lost) -> str:
    norms = [outcome.measured["norm_first"] for _, many in lost for outcome in many.outcomes]
    return f"{number(min(norms))} to {number(max(norms))}, median {number(median(norms))}"


def _loss(lost: Lost) -> str:
    runs = [outcome.measured for _, many in lost for outcome in many.outcomes]
    kept = [run["loss_last"] / run["loss_first"] for run in runs if math.isfinite(run["loss_last"])]
    peak = _middle(run["loss_highest"] / run["loss_first"] for run in runs if math.isfinite(run["loss_highest"]))
    broken = [run["nonfinite_step"] for run in runs if run["nonfinite_step"] is not None]
    told = [f"the highest is {number(peak)} of the first"] if peak == peak else []
    told += [f"the last is {number(median(kept))} of it"] if kept else []
    told += [f"not finite in {len(broken)} of {len(runs)} runs, from step {median(broken):.0f}"] if broken else []
    return "; ".join(told) + " (medians)"


def _sign(lost: Lost) -> str:
    alerts = [(o.alert["kind"], o.alert["step"]) for _, many in lost for o in many.outcomes if o.alert]
    runs = sum(len(many.outcomes) for _, many in lost)
    told = [
        f"{kind} in {count} of {runs} runs, at step {_middle(step for k, step in alerts if k == kind):.0f} (median)"
        for kind, count in Counter(kind for kind, _ in alerts).most_common()
    ]
    return "; ".join(told) or "none"


def _causes(lost: Lost) -> str:
    return ", ".join(f"{link(p.name)} ({p.cause}): quality {share(many.quality)}" for p, many in lost) or "–"


def _middle(values: Iterable[float]) -> float:
    found = list(values)
    return median(found) if found else math.nan


CELLS: tuple[tuple[str, Callable[[Lost], str]], ...] = (
    ("causes", _causes),
    ("factor per layer of the error going back", _factor),
    ("first layer's error over the last's", _ratio),
    ("where in depth", _place),
    ("norm of the whole gradient, first step", _norm),
    ("effect on the weights", _weights),
    ("course of the loss", _loss),
    ("first sign: the monitor's first alert", _sign),
)


def _cured(kind: str, results: Results, held: bool) -> str:
    """List cures by the number of problems that they cured, or did not, each with its median qualities' range."""
    verdicts: dict[str, list[tuple[bool, float]]] = {}
    for setting, many in results.items():
        is_one = len(setting.cures) == 1 and setting.biases and not setting.cures[0].startswith("depth_")
        if is_one and PROBLEMS[setting.problem].kind == kind:
            verdicts.setdefault(setting.cures[0], []).append((judge(setting, results) == "held", many.quality))
    told = []
    for name, runs in verdicts.items():
        chosen = [quality for is_cured, quality in runs if is_cured == held]
        if chosen:
            low, high = min(chosen), max(chosen)
            span = share(low) if len(chosen) == 1 else f"{share(low)}–{share(high)}"
            told.append((-len(chosen) / len(runs), f"{CURES[name].title} {len(chosen)} of {len(runs)} ({span})"))
    found = "; ".join(text for _, text in sorted(told, key=lambda pair: pair[0])) or "–"
    return f"{found}. [All of them](#cures-of-{kind})"


def _guarded(kind: str, results: Results) -> str:
    settings = [(problem.name, Setting(problem.name, guard="full")) for problem in _trained(kind, results)]
    return ", ".join(f"{link(name)} {share(results[one].quality)}" for name, one in settings if one in results) or "–"
