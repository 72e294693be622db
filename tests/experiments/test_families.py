"""Today's families: how they are split, and that each of their nets and tasks trains."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hydra import compose
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.corpus import Scenario, load_scenarios, quick
from experiments.corpus.scenarios import HELD_OUT, UNBIASED, compose_run, configs
from experiments.run import run

SCENARIOS = load_scenarios()
FAMILIES = sorted({scenario.family for scenario in SCENARIOS.values()} - {""})
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")


def test_whole_families_belong_to_the_score_half() -> None:
    assert len(HELD_OUT) >= 5
    assert set(HELD_OUT) < set(FAMILIES)
    halves = {family: {one.split for one in SCENARIOS.values() if one.family == family} for family in FAMILIES}
    assert all(halves[family] == {"score"} for family in HELD_OUT)
    assert sum(half == {"tune", "score"} for half in halves.values()) >= 10, "a rule can be tuned on most of the others"


def test_a_twin_is_in_the_half_of_its_family() -> None:
    assert Scenario("sigmoid_5_momentum" + UNBIASED, family="graph").split == "score"
    for scenario in SCENARIOS.values():
        assert scenario.unbiased().split == scenario.split


def test_a_family_changes_no_half_but_those_that_are_held_out() -> None:
    for scenario in SCENARIOS.values():
        if scenario.family not in HELD_OUT:
            assert replace(scenario, family="").split == scenario.split


def test_each_family_has_healthy_and_failing_runs() -> None:
    for family in FAMILIES:
        kinds = {scenario.kind for scenario in SCENARIOS.values() if scenario.family == family}
        assert "" in kinds
        assert len(kinds) >= 2, family


def test_the_quick_subset_holds_none_of_them() -> None:
    assert {scenario.family for scenario in quick(SCENARIOS.values())} == {""}


@pytest.mark.slow
def test_all_their_configs_compose() -> None:
    with configs():
        for name, scenario in SCENARIOS.items():
            if scenario.family:
                assert compose_run(name, 0).scenario == f"corpus/{name}"


class Moves(Callback):
    """Notes which parameters a training moves, and the losses."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.still = {name for name, p in pl_module.named_parameters() if p.equal(self.start[name])}
        self.loss = float(trainer.callback_metrics["train/loss"])


# One healthy run of each net, task, data set, optimizer and precision.
TRAINED = [
    "ref_gated_words",
    "ref_gated_digits",
    "ref_gated_sequence",
    "ref_convnext",
    "ref_resnet",
    "ref_ctc",
    "ref_graph",
    "ref_mixture",
    "ref_ode",
    "ref_wasserstein",
    "ref_clipped_policy",
    "ref_flow_moons",
    "adafactor_mlp",
    "softmax_twice",
    "lbfgs_tanh",
    "bf16_weights_adam",
    "uniform_centred",
    pytest.param("muon_alone", marks=needs_muon),
    pytest.param("muon_beside_adamw", marks=needs_muon),
]
# The critic's last bias raises real and made points alike: it has no gradient.
ALIKE = {"ref_wasserstein": {"model.discriminator.4.bias"}}


@pytest.mark.parametrize("name", TRAINED)
def test_a_net_trains_some_steps_and_all_of_it_moves(name: str) -> None:
    moves = Moves()
    shorter = ["trainer.max_steps=6", "trainer.val_check_interval=2"]
    quietly = ["guard=none", "logger=none", "trainer.enable_progress_bar=false"]
    with configs():
        cfg = compose("config", overrides=[f"experiment=corpus/{name}", *shorter, *quietly])
        result = run(cfg, callbacks=[moves])
    assert math.isfinite(moves.loss)
    assert math.isfinite(result.quality)
    assert moves.still == ALIKE.get(name, set())
