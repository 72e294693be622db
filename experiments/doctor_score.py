"""Score the doctor: ``python -m experiments.doctor_score FOLDER``.

On failing and healthy scenarios of the tuning half of the corpus, seed 0: is the final quality back at 0.9 of the
reference's within 8 trials, and how many does it take? Beside the same cures in a random order. Finished trainings are
kept in FOLDER, and a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import torch

from experiments.corpus.scenarios import Scenario, load_scenarios
from experiments.doctor import HydraSource
from grad_callbacks.doctor import Budget, Doctor
from grad_callbacks.doctor.attempt import Attempt, Order, carry_out
from grad_callbacks.doctor.choosing import cures_for
from grad_callbacks.doctor.cures import Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.search import Choose
from grad_callbacks.events import KINDS

BACK = 0.9  # of the reference's quality
FAILING, HEALTHY = 8, 10  # scenarios of each kind, and healthy ones
TRIALS, MINUTES = 8, 30.0
QUALITY = "val/quality"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="scenarios whose name has this")
    options = parser.parse_args(arguments)
    _quiet()
    torch.set_num_threads(1)
    # The second order after all of the first: what one has trained the other finds.
    for order, choose in (("ours", cures_for), ("random", _shuffled)):
        for scenario in chosen(load_scenarios().values()):
            if (options.only and options.only not in scenario.name) or (order == "random" and not scenario.kind):
                continue
            source = HydraSource((f"experiment=corpus/{scenario.name}",))
            # Within its steps, no cure can do more than undo an injected fault.
            well = scenario.name if scenario.has_fault else scenario.reference
            reference = HydraSource((f"experiment=corpus/{well}",), with_fault=False)
            row = scored(scenario.name, source, reference, options.folder, choose)
            sys.stdout.write(json.dumps({"order": order, "kind": scenario.kind, **row}) + "\n")
            sys.stdout.flush()
    return 0


def chosen(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """Of the tuning half: the first failing ones of each kind and healthy ones, by the SHA-256 of their names."""
    tuned = sorted((one for one in scenarios if one.split == "tune"), key=lambda one: one.digest)
    counts = {**dict.fromkeys(KINDS, FAILING), "": HEALTHY}
    by_kind = [[one for one in tuned if one.kind == kind][:count] for kind, count in counts.items()]
    return [one for row in zip(*(kind + [None] * HEALTHY for kind in by_kind), strict=False) for one in row if one]


def scored(name: str, source: Any, reference: Any, folder: Path, choose: Choose) -> dict[str, Any]:
    """Search, and compare the final quality with the reference's."""
    level = _level(reference, folder)
    found = Doctor(source, Budget(TRIALS, MINUTES, source.steps()), folder / name, choose=choose).search()
    quality = _quality(found.best or found.ill)
    return {
        "name": name,
        "level": level,
        "verdict": found.ill.verdict,
        "cause": found.ill.cause,
        "ill": _quality(found.ill),
        "untouched": found.is_healthy,
        "trials": len(found.tried),
        "cure": found.best.name if found.best else "",
        "says_cured": found.is_cured,
        "quality": quality,
        "back": quality >= level - (1 - BACK) * abs(level),
        "seconds": round(sum(one.seconds for one in found.tried), 1),
    }


def _shuffled(ill: Attempt) -> tuple[list[Cure], list[str]]:
    cures, refused = cures_for(ill)
    random.Random(0).shuffle(cures)
    return cures, refused


def _level(reference: Any, folder: Path) -> float:
    kept = folder / f"reference-{reference.name}.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = carry_out(reference, Order((), 0, reference.steps(), 3600.0), Inspection())
        kept.write_text(done.to_json())
    return _quality(Attempt.from_json(kept.read_text()))


def _quality(attempt: Attempt) -> float:
    quality = attempt.metrics.get(QUALITY, float("-inf"))
    return quality if quality == quality else float("-inf")


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning", "lightning.fabric", "pytorch_lightning", "grad_callbacks"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
