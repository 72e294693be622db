"""Judging: what the rules say of recorded runs as they are, and under each change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

from experiments.corpus import Recording, Stream
from experiments.scoreboard.ablation.changing import FIRST_STEP, Change, changed, readers, specs
from experiments.scoreboard.detectors.ours import Raised, build_rules, first_alert, let_through, raised
from grad_callbacks import Alert
from grad_callbacks.detection.rules import RULES

Said = list[tuple[str, int]]  # kind and step of each alert, in the order of their steps
Paths = tuple[Path, ...]
Heard = list[Raised] | Alert | None


def judge(paths: Paths) -> list[Said]:
    """Return what the rules say of each run."""
    return [_of_run(_usual(paths, place)) for place in range(len(paths))]


def judge_changed(job: tuple[Paths, Change]) -> dict[int, Said] | None:
    """Return what they say of the runs of which they say something else under a change, by place.

    Only the rules that read what is changed judge again. None if nothing is changed, or no rule can judge then.
    """
    paths, change = job
    usual = [_usual(paths, place) for place in range(len(paths))]
    with changed(change) as is_changed:
        if not is_changed:
            return None
        try:
            again = [
                [
                    part | {rule: _heard(stream, rule) for rule in readers(change)}
                    for part, stream in zip(*run, strict=True)
                ]
                for run in zip(usual, map(_streams, _recordings(paths)), strict=True)
            ]
        except (ArithmeticError, LookupError, ValueError):  # such as the median of nothing
            return None
    both = enumerate(zip(map(_of_run, usual), map(_of_run, again), strict=True))
    return {place: after for place, (before, after) in both if before != after}


def _of_run(streams: Sequence[dict[str, Heard]]) -> Said:
    told = []
    for heard in streams:
        by_rule = [entries for rule in RULES if isinstance(entries := heard[rule], list)]
        first = heard[FIRST_STEP]
        assert first is None or isinstance(first, Alert)
        told += let_through(by_rule, first, {RULES[rule].kind for rule in RULES})
    return sorted(((alert.kind, alert.step) for alert in told), key=lambda said: said[1])


def _heard(stream: Stream, rule: str) -> Heard:
    return first_alert(stream) if rule == FIRST_STEP else raised(stream, *build_rules([specs(rule)]))


@cache
def _usual(paths: Paths, place: int) -> list[dict[str, Heard]]:
    """What each rule says by itself, by stream."""
    streams = _streams(_recordings(paths)[place])
    return [{rule: _heard(stream, rule) for rule in (*RULES, FIRST_STEP)} for stream in streams]


def _streams(recording: Recording) -> list[Stream]:
    return list(recording.streams.values())


@lru_cache(maxsize=1)
def _recordings(paths: Paths) -> list[Recording]:
    return list(_read(paths))


def _read(paths: Paths) -> Iterator[Recording]:
    for path in paths:
        recording = Recording.read(path)
        for stream in recording.streams.values():
            for segment in stream.segments:
                segment.beside.clear()  # what only published rules look at
        yield recording
