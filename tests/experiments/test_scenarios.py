"""What the demo's scenarios come to, without a guard, with one, and with a structural cure.

What a network reaches differs from seed to seed and from processor to processor: where it decides, several seeds and
their median are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pytest
from hydra import compose, initialize_config_dir

from experiments.run import Result, run

CONF = Path(__file__).resolve().parents[2] / "conf"


def scenario(name: str, guard: str, *overrides: str) -> Result:
    """Run a scenario of the demo without logging it."""
    chosen = [f"experiment={name}", f"guard={guard}", "logger=none", "trainer.enable_progress_bar=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*chosen, *overrides])
    return run(config)


SEEDS = (0, 1, 2)
FAR_TOO_HIGH = ("optimizer.lr=0.3", "trainer.max_epochs=6")  # explodes at about step 25, whatever the rounding


def test_a_rate_far_too_high_ends_at_chance_without_a_guard() -> None:
    assert scenario("high_lr", "none", *FAR_TOO_HIGH).accuracy < 0.2


def test_a_rate_far_too_high_is_noticed_and_treated_by_the_default_guard() -> None:
    monitor = scenario("high_lr", "full", *FAR_TOO_HIGH).monitor
    assert monitor is not None
    assert monitor.verdict == "exploding"
    assert monitor.interventions


@pytest.mark.slow
@pytest.mark.numerics
def test_the_exploding_scenario_ends_at_chance_without_a_guard() -> None:
    """Most seeds: when it explodes depends on the rounding (from step 54 to 380 of 440 for one seed)."""
    assert median(scenario("high_lr", "none", f"seed={seed}").accuracy for seed in SEEDS) < 0.2


def saved(results: Sequence[Result]) -> int:
    """How many of the runs exploded, were treated and repaired, and learned."""
    return sum(
        result.monitor is not None
        and (result.monitor.verdict, result.monitor.outcome) == ("exploding", "repaired")
        and bool(result.monitor.interventions)
        and result.accuracy > 0.9
        for result in results
    )


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize("guard", ["clip_norm", "reduce_lr"])
def test_the_exploding_scenario_is_saved_by_the_remedy_that_it_needs(guard: str) -> None:
    results = [scenario("high_lr", guard, f"seed={seed}") for seed in SEEDS]
    assert saved(results) >= 2, [result.accuracy for result in results]


@pytest.mark.slow
@pytest.mark.numerics
def test_the_exploding_scenario_is_saved_by_the_default_guard_on_some_seeds_only() -> None:
    """A weakness: how well the default guard does where the rate is too high depends on the rounding.

    With the instructions of AVX2 and without any, all of six seeds reach 0.93; with other last digits one of them ends
    at 0.89, and with the instructions of AVX-512 some end at 0.57 to 0.76. Without a guard a run ends at 0.1.
    """
    results = [scenario("high_lr", "full", f"seed={seed}") for seed in range(6)]
    assert saved(results) >= 2, [result.accuracy for result in results]
    assert min(result.accuracy for result in results) > 0.4


@pytest.mark.numerics
def test_the_healthy_scenario_raises_no_alert_and_is_not_touched() -> None:
    unguarded, guarded = scenario("healthy", "none"), scenario("healthy", "full")
    assert guarded.accuracy == unguarded.accuracy > 0.9
    assert guarded.monitor is not None
    assert (guarded.monitor.alerts, guarded.monitor.interventions) == ([], [])


@pytest.mark.numerics
def test_the_vanishing_scenario_is_named_early_with_its_layers() -> None:
    result = scenario("deep_sigmoid", "monitor")
    assert result.accuracy < 0.2
    assert result.monitor is not None
    [alert] = result.monitor.alerts
    assert alert.kind == "vanishing"
    assert alert.step < 20
    assert "model.blocks.0.linear" in alert.layers
    assert alert.cause == "saturated activations"
    assert result.monitor.outcome == "unrepaired"
    assert alert.advice in result.monitor.report()


def vanishing_repaired(*overrides: str) -> float:
    """What the vanishing scenario reaches with the default guard."""
    result = scenario("deep_sigmoid", "full", *overrides)
    assert result.monitor is not None
    made = [(intervention.remedy, intervention.step) for intervention in result.monitor.interventions]
    assert made == [("Reinitialize", 0), ("AdaptiveStep", 0)]
    return result.accuracy


def test_the_guard_repairs_the_vanishing_scenario_before_its_first_step() -> None:
    vanishing_repaired("trainer.max_epochs=2")


@pytest.mark.slow
@pytest.mark.numerics
def test_the_vanishing_scenario_that_the_guard_has_repaired_learns() -> None:
    assert median(vanishing_repaired(f"seed={seed}") for seed in SEEDS) > 0.93


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize(
    "cure", [["activation=relu", "init=he", "optimizer.lr=0.02"], ["norm=batch"], ["model.residual=true"]], ids=str
)
def test_the_structural_cures_that_the_alert_advises_work(cure: list[str]) -> None:
    results = [scenario("deep_sigmoid", "monitor", f"seed={seed}", *cure) for seed in SEEDS]
    assert median(result.accuracy for result in results) > 0.9
    assert {result.monitor.verdict for result in results if result.monitor} == {"healthy"}


@pytest.mark.numerics
def test_clipping_to_a_range_does_not_lift_a_vanishing_gradient() -> None:
    result = scenario("deep_sigmoid", "clip_value")
    assert result.monitor is not None
    assert [i.remedy for i in result.monitor.interventions] == ["ClipValue"]
    assert result.accuracy < 0.2
    assert result.monitor.outcome == "unrepaired"
