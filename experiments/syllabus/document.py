"""docs/syllabus.md, from the results alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product

import torch

from experiments.settings import ConfigError
from experiments.syllabus.claims import DEEP, DEPTHS, IN_THE_TEXT, SEEDS, Setting, cures_of, deep_setting
from experiments.syllabus.cures import CURES
from experiments.syllabus.differences import differences
from experiments.syllabus.judging import SMALL, Many, Results, judge
from experiments.syllabus.problems import PROBLEMS, Problem
from experiments.syllabus.words import link, number, quality, share, table

HEAD = """# Syllabus

What is taught of vanishing and exploding gradients, each statement as a training: the net that has the problem, then
the same net with one thing changed. Written by `python -m experiments.syllabus` from the runs, never by hand.

"""
LEGEND = f"""
How to read the tables:

- **factor per layer**: what the error (the root mean square of the loss's gradient at a layer's output) is multiplied
  by from a layer to the one before it, before the first step, in float64, by a fit over the middle layers; over the
  steps of a sequence in recurrent nets. In brackets what mean-field theory says for these weights, where there is a
  theory: plain multilayer nets.
- **error** and **gradient, first / last**: the first layer's over the last's, of the error and of the weights'
  gradient.
- **quality**: at the end, the median over the seeds and their range. Accuracy, of which chance is .1 (digits) or .25
  (order of symbols); a language model's is 1 - loss / log(vocabulary), below 0 if it is worse than a guess.
- **verdict**: the monitor's, with the number of seeds where they differ.
- **held**: a cause, if the net is lost and the error ratio is below {SMALL:g} or above {1 / SMALL:g} (or, where the
  training brings it, the gradient's norm at least doubles or the loss is not finite). A cure, if the median quality is
  good (.9; {PROBLEMS["transformer_rate"].good:g} for the language model); "in part" above half way to it.
- Every cure is tried at the problem's own learning rate: where the rate is not itself the problem, one at which a well
  initialised net of that depth learns. A cure that would need another rate, or more steps, may not hold here.
- ✦ marks what the text itself claims; the rest are the field's other cures, and controls.
"""


def document(results: Results, picture: str = "") -> str:
    """Return the document, in Markdown.

    Args:
        results: Of at least the problems themselves.
        picture: File name of the picture; empty: none.
    """
    problems = [problem for name, problem in PROBLEMS.items() if Setting(name) in results]
    parts = [HEAD, _about(results), LEGEND, "\n## Differences\n\n", differences(results)]
    parts += ["\n## Claims of the text that did not hold\n\n", _false(results)]
    if picture:
        parts += [
            f"\n## Depth\n\n![The error over the depth of the nets, and over their number of layers]({picture})\n"
        ]
    parts += [_depth(results)] if deep_setting(DEEP[0], DEPTHS[0]) in results else []
    for kind in ("vanishing", "exploding"):
        chosen = [problem for problem in problems if problem.kind == kind]
        parts += [f"\n## {kind.capitalize()}\n\n### Cures of {kind}\n\n", _cures(chosen, results)]
        parts += [_section(problem, results) for problem in chosen]
    return "".join([*parts, "\n## Combinations that make no sense\n\n", refusals()])


def text_claims(results: Results) -> list[Setting]:
    """Return the settings that the text itself makes a claim of, its problems first."""
    causes = [setting for setting in results if not setting.cures and setting.guard == "monitor" and setting.biases]
    cures = [setting for setting in results if setting.biases and _is_text(setting)]
    return causes + cures


def _is_text(setting: Setting) -> bool:
    return len(setting.cures) == 1 and setting.cures[0] in IN_THE_TEXT[PROBLEMS[setting.problem].kind]


def _about(results: Results) -> str:
    outcomes = [outcome for many in results.values() for outcome in many.outcomes]
    rounding = ", ".join(sorted({outcome.rounding for outcome in outcomes}))
    seeds = Counter(len(many.outcomes) for many in results.values()).most_common()
    each = ", ".join(_seeds(count) + (f" in {n} of them" if len(seeds) > 1 else "") for count, n in seeds)
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    told = Counter(judge(setting, results) for setting in text_claims(results))
    held = ", ".join(f"{told[word]} {word}" for word in ("held", "in part", "did not hold") if told[word])
    return (
        f"{len(results)} settings, {each}: {len(outcomes)} runs, {minutes:.0f} minutes one after the other, torch "
        f"{torch.__version__.split('+')[0]}, ATEN_CPU_CAPABILITY {rounding}. "
        f"Of the text's {told.total()} claims: {held}."
        + (f" The command's default is {SEEDS} seeds.\n" if seeds[0][0] < SEEDS else "\n")
    )


def _seeds(count: int) -> str:
    return f"{count} seed" + ("s" if count > 1 else "")


def _false(results: Results) -> str:
    rows = []
    for setting in text_claims(results):
        told = judge(setting, results)
        if told != "held":
            lost, many = results[Setting(setting.problem)], results[setting]
            what = CURES[setting.cures[0]].title if setting.cures else PROBLEMS[setting.problem].statement
            ratio = f"{number(lost.middle('error_ratio'))} → {number(many.middle('error_ratio'))}"
            rows.append([link(setting.problem), what, quality(lost), quality(many), ratio, told])
    return table(["problem", "said to cure it", "quality as it is", "with the cure", "error, first / last", ""], rows)


def _depth(results: Results) -> str:
    rows = []
    for net, depth in product(DEEP, DEPTHS):
        many = results.get(deep_setting(net, depth))
        if many is not None:
            ratio = number(many.middle("error_ratio"))
            rows.append([net.replace("+init_", ", init="), str(depth), _factor(many), ratio, quality(many)])
    head = ["net", "layers", "factor per layer (theory)", "error, first / last", "quality"]
    return "\n" + table(head, rows) + f"\n{_depth_alone(results)}\n"


def _depth_alone(results: Results) -> str:
    """Say what depth does by itself: nothing, where the factor per layer is 1."""
    told = []
    for net in DEEP:
        ends = [results.get(deep_setting(net, depth)) for depth in (DEPTHS[0], DEPTHS[-1])]
        if ends[0] is not None and ends[1] is not None:
            few, many = (number(one.middle("error_ratio")) for one in ends if one is not None)
            told.append(f"{net.replace('+init_', ', init=')} {few} → {many}")
    return (
        f"From {DEPTHS[0]} to {DEPTHS[-1]} layers the first layer's error over the last's goes: {'; '.join(told)}. "
        "Depth makes the product long; whether it vanishes is decided by the factor per layer."
    )


def _cures(problems: Sequence[Problem], results: Results) -> str:
    """Return the median quality of every cure in every problem, bold where it held."""
    names = list(dict.fromkeys(cure for problem in problems for cure in cures_of(problem)))
    settings = {name: [Setting(problem.name, (name,)) for problem in problems] for name in names}
    rows = [[CURES[name].title, *(_cell(one, results) for one in row)] for name, row in settings.items()]
    rows.insert(0, ["as it is", *(_cell(Setting(problem.name), results, is_cure=False) for problem in problems)])
    rows.append(["GradientGuard()", *(_cell(Setting(problem.name, guard="full"), results) for problem in problems)])
    return "Median quality, bold where it is good; an en dash where the cure was not tried.\n\n" + table(
        ["", *(link(problem.name) for problem in problems)], rows
    )


def _cell(setting: Setting, results: Results, is_cure: bool = True) -> str:
    if setting not in results:
        return "–"
    told = share(results[setting].quality)
    return f"**{told}**" if is_cure and judge(setting, results) == "held" else told


def _section(problem: Problem, results: Results) -> str:
    settings = [Setting(problem.name), Setting(problem.name, guard="full")]
    settings += [Setting(problem.name, (cure,)) for cure in cures_of(problem)]
    rows = [_row(problem, setting, results) for setting in settings if setting in results]
    head = ["", "factor per layer (theory)", "error, first / last", "gradient, first / last", "quality"]
    head += ["without biases", "verdict", "held"]
    without = "\nIt lies in the biases: there is no such net without any.\n" if problem.biased else ""
    return f"\n### {problem.name}\n\n✦ {problem.statement}\n{without}\n" + table(head, rows)


def _row(problem: Problem, setting: Setting, results: Results) -> list[str]:
    many = results[setting]
    if setting.guard == "full":
        what = "**GradientGuard()**: " + (", ".join(many.remedies) or "nothing done")
    elif setting.cures:
        what = ("✦ " if _is_text(setting) else "") + CURES[setting.cures[0]].title
    else:
        what = "**as it is**"
    bare = results.get(Setting(setting.problem, setting.cures, setting.guard, biases=False))
    errors, gradients = (number(many.middle(name)) for name in ("error_ratio", "weight_ratio"))
    return [
        what,
        _factor(many),
        errors,
        gradients,
        quality(many),
        quality(bare),
        many.verdicts,
        judge(setting, results),
    ]


def _factor(many: Many) -> str:
    theory = many.middle("theory")
    return number(many.middle("decay")) + (f" ({number(theory)})" if theory == theory else "")


def refusals() -> str:
    """Return one line for each kind of net and each reason why cures are not tried in it."""
    return "".join(f"- {line}.\n" for line in _reasons())


def _reasons() -> Iterable[str]:
    together: dict[tuple[str, str], list[str]] = {}
    for cure, problem in product(CURES.values(), {p.net: p for p in PROBLEMS.values()}.values()):
        try:
            cure.overrides(problem)
        except ConfigError as error:
            if problem.net in cure.refused:
                together.setdefault((problem.net, str(error).split(": ", 1)[1]), []).append(cure.title)
    for (net, reason), titles in together.items():
        yield f"{net} nets: {', '.join(titles)}: {reason}"
