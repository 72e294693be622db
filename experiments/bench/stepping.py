"""What the plugin adds to a step, beside the older builds of itself and torch's own clipping."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from experiments.bench.builds import NOW, Worker, workers
from experiments.bench.table import Row, Section
from experiments.bench.timing import ROUND, WARMUP, Spread, added_milliseconds, ratio

COMMITS = ("93700ae", "cc7b3f4")  # before steps were judged together; before the hot path was shortened
CLIP = "`clip_grad_norm_`"
KINDS = ("monitor", "guard")
BEFORE = 60  # steps that are left out, or looked at alone
RATIO = 1.5  # promised for 1000 tensors, where the tensors take most of the time

METHOD = f"""*Added* is what an engine with its default rules (monitor), or with the default prescription too (guard),
adds to a step after the first {BEFORE} of a small network: the call before the optimizer's step, and the hooks in it,
less the same step without an engine. Gradients are computed anew before each call, outside the timed part; the
optimizer moves nothing. A round is {ROUND} steps, of which one measures the weights and, in a guard, one takes a
snapshot.
*Whole step* is a training in a Trainer with `GradientMonitor()` or `GradientGuard()`, over one without. Builds of
earlier commits are timed in turns with the present one, each in a process of its own; a ratio to one is a ratio of what
is added."""

# Network, rounds, and what may be added in milliseconds.
ADDED: tuple[tuple[str, str, int, Mapping[str, float]], ...] = (
    ("plain 13", "13 layers, 26 tensors", 7, {"monitor": 0.15, "guard": 0.2}),
    ("residual 75", "150 tensors", 5, {"monitor": 0.3, "guard": 0.3}),
    ("residual 500", "1000 tensors", 3, {}),
)
# Training, steps, rounds, and what the guard may take for each stretch of steps, as a multiple of none.
WHOLE: tuple[tuple[str, str, int, int, Mapping[str, float]], ...] = (
    ("lstm", "LSTM of 16 units", 300, 3, {"after 60": 1.12}),
    ("transformer", "6M transformer, 64 tokens", 120, 3, {"from step 0": 1.03, "steps 0 to 60": 1.06}),
)


def run(quick: bool) -> Section:
    """Time all cases."""
    rows = []
    with workers(() if quick else COMMITS) as builds:
        for case, name, rounds, promises in (("plain 4", "4 layers", 2, {}),) if quick else ADDED:
            rows += _added(builds, case, name, rounds, promises, quick)
        for case, name, steps, rounds, promises in () if quick else WHOLE:
            rows += _whole(builds, case, name, steps, rounds, promises)
    return Section("What is added to a step", METHOD, rows)


def _added(
    builds: Mapping[str, Worker], case: str, name: str, rounds: int, promises: Mapping[str, float], quick: bool
) -> list[Row]:
    for worker in builds.values():
        worker.ask("added", case, 1 if quick else max(BEFORE, 3 * WARMUP))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for build, worker in builds.items():
            for what, seconds in worker.ask("added", case, 2 if quick else ROUND).items():
                times[build, what].append(seconds)
    rows = []
    for kind in KINDS:
        added = added_milliseconds(times[NOW, kind], times[NOW, "bare"])
        rows.append(Row(name, f"{kind}, added", "nothing", added, promises.get(kind), unit="ms"))
        against = ratio(times[NOW, kind], times[NOW, "clip"])
        rows.append(Row(name, kind, CLIP, against, None if promises or quick else RATIO))
        for commit in [build for build in builds if build != NOW]:
            mine, others = (_above(times, build, kind) for build in (NOW, commit))
            rows.append(Row(name, f"{kind}, added", f"build {commit}", ratio(mine, others)))
    return rows


def _above(times: Mapping[tuple[str, str], list[float]], build: str, kind: str) -> list[float]:
    return [a - b for a, b in zip(times[build, kind], times[build, "bare"], strict=True)]


def _whole(
    builds: Mapping[str, Worker], case: str, name: str, steps: int, rounds: int, promises: Mapping[str, float]
) -> list[Row]:
    seconds: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for _ in range(rounds):
        for build, worker in builds.items():
            for kind in ("bare", *KINDS):
                seconds[build, kind].append(worker.ask("fit", case, kind, steps))
    bare = [second for run in seconds[NOW, "bare"] for second in run]
    named = f"{name}, bare step {1000 * Spread.of(bare).median:.1f} ms"
    stretches = {"from step 0": slice(1, None), "steps 0 to 60": slice(1, BEFORE), "after 60": slice(BEFORE, None)}
    rows = []
    for stretch, part in stretches.items():
        for kind in KINDS:
            for build in builds:
                of, to = ([sum(run[part]) for run in seconds[build, each]] for each in (kind, "bare"))
                promise = promises.get(stretch) if (kind, build) == ("guard", NOW) else None
                what = f"{kind}, {stretch}" + ("" if build == NOW else f", build {build}")
                rows.append(Row(named, what, "none", ratio(of, to), promise))
    return rows
