"""The scenarios: what each is expected to do, and which half of the corpus it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

import experiments.run  # noqa: F401  # registers the resolvers that the configs use

CONF = Path(__file__).resolve().parents[2] / "conf"
FOLDER = "experiment/corpus"

Split = Literal["tune", "score"]

# Families whose scenarios all belong to the score half: no rule was tuned on any net of the kind. They were chosen
# before any detector had judged a run of theirs.
HELD_OUT = ("ctc", "graph", "mixture_density", "neural_ode", "wasserstein")

UNBIASED = "_unbiased"  # ends the name of a scenario's twin, whose network has no biases


@dataclass(frozen=True)
class Scenario:
    """A scenario of the corpus.

    Attributes:
        name: The file's name: ``corpus/`` and this is the scenario.
        kinds: The kinds of alert that are right, the one it counts for first. Empty for a healthy run.
        causes: The causes that are right.
        reference: Name of the healthy scenario whose quality a run must match.
        onset: Step at which the run begins to go wrong; None if it is to be found in the loss.
        has_fault: A fault is injected into a run that is meant to be well without it.
        family: What kind of net, optimizer or precision it is about; empty for the scenarios from before there were
            families.
    """

    name: str
    kinds: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    reference: str = ""
    onset: int | None = None
    has_fault: bool = False
    family: str = ""

    @property
    def split(self) -> Split:
        """``"tune"`` or ``"score"``: whether the first byte of the name's SHA-256 is even or odd. Nobody chooses.

        The families in ``HELD_OUT`` belong to the score half as a whole: what is tuned on some nets of a kind is not
        unseen by its others.
        """
        if self.family in HELD_OUT:
            return "score"
        name = self.name.removesuffix(UNBIASED)  # twins are in the same half
        return "score" if hashlib.sha256(name.encode()).digest()[0] % 2 else "tune"

    @property
    def kind(self) -> str:
        """The kind that it counts for; empty for a healthy run."""
        return self.kinds[0] if self.kinds else ""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the name."""
        return hashlib.sha256(self.name.encode()).digest()

    def unbiased(self) -> Scenario:
        """Return its twin, whose network has no biases; so has that of its reference."""
        return replace(self, name=self.name + UNBIASED, reference=self.reference + UNBIASED)

    @classmethod
    def of(cls, name: str, config: dict[str, Any]) -> Scenario:
        """Read what ``config``, a scenario's file, expects.

        Raises:
            ValueError: If something is missing or has an unknown name.
        """
        expects = config.get("expects")
        known = {"kinds", "causes", "reference", "onset", "family"}
        if not isinstance(expects, dict) or "reference" not in expects or not set(expects) <= known:
            raise ValueError(f"corpus/{name}: expects must hold kinds, causes, reference and onset, got {expects!r}")
        return cls(
            name=name,
            kinds=tuple(expects.get("kinds", ())),
            causes=tuple(expects.get("causes", ())),
            reference=str(expects["reference"]).removeprefix("corpus/"),
            onset=expects.get("onset"),
            has_fault=any(
                "override /fault" in entry for entry in config.get("defaults", ()) if isinstance(entry, dict)
            ),
            family=str(expects.get("family", "")),
        )


def load_scenarios(conf: Path = CONF, unbiased: bool = False) -> dict[str, Scenario]:
    """Return all scenarios by name, in the order of their names.

    Args:
        conf: The folder of the configs.
        unbiased: Their twins instead, whose networks have no biases.

    Raises:
        ValueError: If a file does not say what is expected.
    """
    files = sorted((conf / FOLDER).glob("*.yaml"))
    found = [Scenario.of(file.stem, yaml.safe_load(file.read_text()) or {}) for file in files]
    return {one.name: one for one in ([scenario.unbiased() for scenario in found] if unbiased else found)}


def with_references(chosen: Iterable[Scenario], scenarios: Mapping[str, Scenario]) -> dict[str, Scenario]:
    """Return the chosen scenarios and those that they are compared with, by name.

    Raises:
        ValueError: If a reference does not exist or is not meant to be healthy.
    """
    needed = {}
    for scenario in chosen:
        reference = scenarios.get(scenario.reference)
        if reference is None or reference.kinds:
            raise ValueError(f"corpus/{scenario.name}: its reference {scenario.reference!r} is no healthy scenario")
        needed |= {scenario.name: scenario, reference.name: reference}
    return needed


QUICK = {"": 12, "vanishing": 4, "exploding": 4, "nonfinite": 4}  # scenarios of each kind; "" is healthy


def quick(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """Return some 24 scenarios: of each kind the first by the SHA-256 of their names.

    Those with a family are not among them: the subset stays what it was, and so does the time that it takes.
    """
    by_digest = sorted((one for one in scenarios if not one.family), key=lambda scenario: scenario.digest)
    kinds = {kind: [s for s in by_digest if s.kind == kind][:count] for kind, count in QUICK.items()}
    return [scenario for chosen in kinds.values() for scenario in chosen]


@contextmanager
def configs(conf: Path = CONF) -> Iterator[None]:
    """Make Hydra read the configs of ``conf`` inside the block."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        yield


def compose_run(name: str, seed: int) -> DictConfig:
    """Compose the config of one run, without guard, logger and progress bar; inside :func:`configs`."""
    overrides = [f"experiment=corpus/{name.removesuffix(UNBIASED)}", f"seed={seed}", "guard=none", "logger=none"]
    overrides += ["trainer.enable_progress_bar=false", *(["biases=false"] if name.endswith(UNBIASED) else [])]
    return compose("config", overrides=overrides)
