"""Treatments: with what a run is trained beside what its scenario says."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf

from experiments.corpus import plugin_key
from experiments.corpus.scenarios import configs
from experiments.scoreboard.repair import drawn
from experiments.scoreboard.repair.published import PUBLISHED
from grad_callbacks.events import KINDS

UNGUARDED = "unguarded"
OURS = "full"  # GradientGuard() with its defaults
LONGER = "full_longer"
RANDOM = "random"
NO_TREATMENT = ("none", "monitor", "observe")  # guards that change nothing

# Remedies that change nothing before they answer an alert: a run without one is the run without a guard.
ANSWERING = {"ClipNorm", "ClipValue", "AdaptiveClip", "AGC", "ReduceLR", "Warmup", "SkipStep", "Rollback"}
ANSWERING |= {"MaskUndefined", "RescaleInputs", "StandardizeInputs", "FullPrecision", "AdaptiveStep"}


@dataclass(frozen=True)
class Treatment:
    """What is done to a run.

    Attributes:
        name: Unique, and part of a file's name.
        what: Says it in a sentence or more.
        guard: The config of the guard; None for none.
        changes: What else is set in the config, by its dotted name.
        published: The name of another's remedy (see :data:`~experiments.scoreboard.repair.published.PUBLISHED`).
        steps: How many steps its runs have, as a multiple of the scenario's.
    """

    name: str
    what: str
    guard: Mapping[str, Any] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    published: str = ""
    steps: float = 1.0

    def apply(self, cfg: DictConfig) -> DictConfig:
        """Return the config of a run under this treatment, given that of the unguarded run."""
        treated, guard = cfg.copy(), self.guard
        if guard is not None and self.name == RANDOM:
            about = {"scenario": str(cfg.scenario), "seed": int(cfg.seed)}
            path = f"{drawn.__name__}.{drawn.Drawn.__name__}"
            guard = {**guard, "prescription": {kind: [{path: {**about, "kind": kind}}] for kind in KINDS}}
        treated.guard.callback = guard
        for name, value in self.changes.items():
            OmegaConf.update(treated, name, value, force_add=True)
        if self.steps != 1:
            treated.trainer.max_steps = int(self.steps * treated.trainer.max_steps)
        return treated

    def callbacks(self) -> list[Callback]:
        """Return the callbacks of another's remedy."""
        return [PUBLISHED[self.published]()] if self.published else []

    def key(self) -> str:
        """Return a key of all that decides what it does, the plugin's code among it if it is used."""
        source = Path(inspect.getsourcefile(PUBLISHED[self.published]) or "").read_text() if self.published else ""
        lot = Path(drawn.__file__).read_text() if self.name == RANDOM else ""
        told = [self.guard, dict(self.changes), source, lot, plugin_key() if self.guard else ""]
        told += [self.steps] if self.steps != 1 else []  # keys of outcomes from before there was a choice stay valid
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def may_act(self, alerted: Sequence[str]) -> bool:
        """False if it cannot change a run: it only answers alerts, and those that it answers never came.

        Args:
            alerted: The kinds of alert that a monitor raises in the unguarded run.
        """
        if self.name == RANDOM:
            return bool(alerted)
        plan = (self.guard or {}).get("prescription")
        if not isinstance(plan, Mapping) or "rules" in (self.guard or {}):
            return True
        remedies = {spec if isinstance(spec, str) else next(iter(spec)) for kind in plan for spec in plan[kind] or ()}
        return not remedies <= ANSWERING or any(plan[key] for key in plan if key.split(":")[0] in alerted)


def all_treatments(conf: Path) -> dict[str, Treatment]:
    """Return all treatments by name: ours, each remedy alone, the lot, then what others have published.

    Args:
        conf: The folder of the configs; each guard in it is a treatment, but those that change nothing.
    """
    names = sorted(file.stem for file in (conf / "guard").glob("*.yaml") if file.stem not in NO_TREATMENT)
    names.sort(key=lambda name: name != OURS)
    with configs(conf):
        guards = {name: _guard(name) for name in names}
    from_start = {
        "rules": ["experiments.bench.rules.FromTheStart"],
        "prescription": {"exploding": [{"ClipNorm": 1.0}]},
    }
    clipping = {"trainer.gradient_clip_val": 1.0, "trainer.gradient_clip_algorithm": "norm"}
    lot = "Each alert is answered by a remedy that is drawn by lot from all there are."
    found = [
        *(Treatment(name, _comment(conf / "guard" / f"{name}.yaml"), guard) for name, guard in guards.items()),
        Treatment(LONGER, "GradientGuard(), and a tenth more steps.", guards[OURS], steps=1.1),
        Treatment("clip_norm_from_start", "Clips at a norm of 1 from the first step on.", {**GUARD, **from_start}),
        Treatment(RANDOM, lot, GUARD),
        Treatment("lightning_clip_1", "Lightning's gradient_clip_val=1.", changes=clipping),
        FAULTLESS,
        *(Treatment(name, inspect.getdoc(cls) or "", published=name) for name, cls in PUBLISHED.items()),
    ]
    return {treatment.name: treatment for treatment in found}


GUARD = {"_target_": "grad_callbacks.GradientGuard"}
WATCHED = Treatment(UNGUARDED, "Nothing is done; a monitor watches.", {"_target_": "grad_callbacks.GradientMonitor"})
FAULTLESS = Treatment(
    "without_fault",
    "Nobody breaks the run: what a remedy can reach within its steps. A run broken by its settings stays as it is.",
    changes={"fault": None},
)
BARE = Treatment("bare", "Nothing is done, and nobody watches.")


def _guard(name: str) -> dict[str, Any]:
    cfg = compose("config", overrides=[f"guard={name}", "logger=none"]).guard.callback
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return plain  # type: ignore[no-any-return]


def _comment(path: Path) -> str:
    lines = path.read_text().splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
