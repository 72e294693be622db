"""Choosing: which scenarios, seeds and recordings a command is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.corpus import CONF, Scenario, load_scenarios, quick, with_references


@dataclass(frozen=True)
class Choice:
    """What a command is about.

    Attributes:
        scenarios: The scenarios to be scored, by name.
        needed: These and those that they are compared with.
        seeds: The seeds.
        split: The half of the corpus, or ``"all"``.
        conf: The folder of the configs.
    """

    scenarios: Mapping[str, Scenario]
    needed: Mapping[str, Scenario]
    seeds: Sequence[int]
    split: str
    conf: Path

    @property
    def title(self) -> str:
        """Says it in a few words."""
        return f"{self.split}, {len(self.scenarios)} scenarios, seeds {' '.join(map(str, self.seeds))}"


def choose(
    split: str,
    is_quick: bool = False,
    names: Sequence[str] = (),
    seeds: Sequence[int] = (),
    conf: Path | None = None,
    unbiased: bool = False,
) -> Choice:
    """Choose scenarios.

    Args:
        split: ``"tune"``, ``"score"`` or ``"all"``.
        is_quick: Only some 24 of them (see :func:`experiments.corpus.quick`).
        names: Only these; by default all.
        seeds: By default 0, 1 and 2, or 0 where ``is_quick``.
        conf: The folder of the configs, by default that of this repository.
        unbiased: The scenarios' twins instead, whose networks have no biases.

    Raises:
        ValueError: If a scenario does not exist or is wrong, or none is left.
    """
    conf = conf or CONF
    scenarios = load_scenarios(conf, unbiased)
    unknown = sorted(set(names) - set(scenarios))
    if unknown:
        raise ValueError(f"there is no scenario {unknown[0]!r} in {conf / 'experiment' / 'corpus'}")
    found = [s for s in scenarios.values() if split in ("all", s.split) and (not names or s.name in names)]
    if is_quick:
        found = quick(found)
    if not found:
        raise ValueError(f"no scenario of {split} is left to be scored")
    return Choice(
        scenarios={scenario.name: scenario for scenario in found},
        needed=with_references(found, scenarios),
        seeds=list(seeds) or ([0] if is_quick else [0, 1, 2]),
        split=f"{split}, without biases" if unbiased else split,
        conf=conf,
    )


def latest(folder: Path, choice: Choice) -> list[Path]:
    """Return the newest recording of each scenario and seed that is needed, as far as there are any."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime):
        name, _, rest = path.stem.rpartition("-")[0].rpartition("-")
        if name in choice.needed and rest in map(str, choice.seeds):
            found[name, rest] = path
    return [found[run] for run in sorted(found)]
