"""Each cure: what it changes, and what that comes to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.doctor import ImportedSource, Setup
from grad_callbacks.doctor.attempt import Attempt, Order, carry_out, trainer_class
from grad_callbacks.doctor.cures import (
    Activation,
    Clip,
    Cure,
    Epsilon,
    FullPrecision,
    Guard,
    Initialisation,
    LearningRate,
    Logits,
    Normalisation,
    Residual,
    StandardInputs,
    WarmUp,
)
from grad_callbacks.doctor.inspection import Inspection
from tests.support.ill_modules import DeepNet, Scheduled, digits

HOME = "tests.support.ill_modules"
BATCH = next(iter(digits()[0]))


def source(model: str = "DeepNet", **arguments: Any) -> ImportedSource:
    return ImportedSource(f"{HOME}.{model}", f"{HOME}.digits", arguments)


def seen(made: ImportedSource) -> Attempt:
    return carry_out(made, Order(steps=2), Inspection())


def applied(cure: Cure, made: ImportedSource) -> tuple[Setup, list[str]]:
    ill = seen(made)
    assert cure.applies(ill)
    setup = made.make(0)
    return setup, cure.apply(setup, ill.inspection)


def trained(setup: Setup, steps: int = 1) -> Any:
    options = {"max_steps": steps, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = trainer_class(setup.module)(callbacks=setup.callbacks, **options, **quiet, **setup.trainer)
    trainer.fit(setup.module, **setup.data_arguments)
    return trainer


def test_activation_swaps_the_hidden_ones_and_draws_weights_that_go_with_them() -> None:
    setup, lines = applied(Activation("GELU"), source(activation="Tanh", depth=4))
    assert [type(module).__name__ for module in setup.module.net[1::2]] == ["GELU"] * 3
    assert lines[0] == "`nn.Tanh()` -> `nn.GELU()` at net.1, and 2 more"
    assert float(setup.module.net[2].weight.detach().std()) == pytest.approx(math.sqrt(2 / 32), rel=0.1)
    assert not Activation("LeakyReLU").applies(seen(source(activation="Tanh")))
    assert not Activation("ReLU").applies(seen(source(activation="ReLU")))


@pytest.mark.parametrize(("scheme", "deviation"), [("he", math.sqrt(2 / 32)), ("xavier", math.sqrt(1 / 32))])
def test_initialisation_draws_the_weights(scheme: Any, deviation: float) -> None:
    setup, _ = applied(Initialisation(scheme), source())
    assert float(setup.module.net[2].weight.detach().std()) == pytest.approx(deviation, rel=0.1)
    assert not setup.module.net[2].bias.any()


def over_rows(output: Tensor) -> float:
    """How much the outputs of a layer differ from row to row."""
    return float(output.detach().std(dim=0).mean())


def test_lsuv_lets_the_signal_through_from_the_first_step_on() -> None:
    setup, _ = applied(Initialisation("lsuv"), source(activation="Sigmoid", depth=7, lr=1e-12))
    sizes: list[float] = []
    setup.module.net[10].register_forward_hook(lambda module, inputs, output: sizes.append(over_rows(output)))
    trained(setup)
    assert sizes[0] < 0.05, "as it was, when it was measured"
    assert sizes[-1] > 0.5


def test_normalisation_goes_between_layer_and_activation() -> None:
    setup, lines = applied(Normalisation("batch"), source(depth=4))
    given: list[Tensor] = []
    setup.module.net[3].register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    setup.module(BATCH[0])
    torch.testing.assert_close(given[0].mean(dim=0), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(given[0].std(dim=0, correction=0), torch.ones(32), atol=1e-2, rtol=0)
    assert lines[0].startswith("`nn.BatchNorm1d(32")
    assert not hasattr(setup.module.net[6], "added_norm"), "not behind the last layer"
    names = {name for name, _ in setup.module.named_parameters()}
    assert "net.0.added_norm.weight" in names, "it is trained, too"
    rows, _ = applied(Normalisation("layer"), source(depth=4))
    assert isinstance(rows.module.net[0].added_norm, nn.LayerNorm)


def test_residual_adds_the_input_behind_the_activation() -> None:
    setup, lines = applied(Residual(), source(depth=5))
    plain = source(depth=5).make(0).module.net
    inputs = plain[:2](BATCH[0])
    expected = inputs + plain[2:4](inputs) / math.sqrt(3)
    torch.testing.assert_close(setup.module.net[:4](BATCH[0]), expected)
    assert lines == ["`x = x + block(x) / 3 ** 0.5` for the 3 blocks of equal width, net.2 to net.6"]
    assert not Residual().applies(seen(source(depth=3))), "that is no depth"


@pytest.mark.parametrize("model", ["DeepNet", "Scheduled"])
def test_a_rate_is_scaled_together_with_its_schedule(model: str) -> None:
    setup, lines = applied(LearningRate(0.1), source(model, lr=0.5))
    as_it_is = source(model, lr=0.5).make(0)
    rates = [trained(one, steps).optimizers[0].param_groups[0]["lr"] for one, steps in ((setup, 9), (as_it_is, 9))]
    assert rates[0] == pytest.approx(0.1 * rates[1])
    assert lines == ["lr=0.5 -> 0.05 in SGD"]


def test_a_warm_up_begins_with_small_steps_and_leaves_the_rate_alone() -> None:
    setup, _ = applied(WarmUp(), source())
    before = setup.module.net[0].weight.detach().clone()
    trainer = trained(setup)
    moved = float((setup.module.net[0].weight - before).norm())
    plain = source().make(0)
    trained(plain)
    alone = float((plain.module.net[0].weight - before).norm())
    assert moved == pytest.approx(alone, rel=1e-3), "1 step of 1: no time to warm up"
    long, _ = applied(WarmUp(), source())
    trainer = trained(long, 20)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.05


def test_clip_eps_and_precision_are_set() -> None:
    setup, lines = applied(Clip(0.12345), source())
    assert trained(setup).gradient_clip_val == 0.12
    assert lines == ["`Trainer(gradient_clip_val=0.12)`"]
    assert not Clip(1.0).applies(Attempt("", 0, inspection=Inspection(clips=0.5)))
    assert not Clip(1.0).applies(Attempt("", 0, inspection=Inspection(is_manual=True)))
    assert not Epsilon(1e-5).applies(seen(source())), "SGD has none"
    half = Attempt("", 0, inspection=Inspection(precision="bf16-mixed"))
    assert FullPrecision().applies(half)
    made = source().make(0)
    assert FullPrecision().apply(made, half.inspection) == [
        "`Trainer(precision='bf16-mixed')` -> `Trainer(precision='32-true')`"
    ]
    assert trained(made).precision == "32-true"


def test_logits_go_into_the_cross_entropy_and_nowhere_else() -> None:
    setup, _ = applied(Logits(), source(softmax=True))
    plain = source(softmax=False).make(0).module
    torch.testing.assert_close(setup.module.training_step(BATCH, 0), plain.training_step(BATCH, 0))
    torch.testing.assert_close(setup.module(BATCH[0]), plain(BATCH[0]).softmax(dim=1))
    assert not Logits().applies(seen(source(softmax=False)))


def test_inputs_are_standardised_in_training_and_as_learned_afterwards() -> None:
    large = ImportedSource(f"{HOME}.DeepNet", f"{HOME}.digits", {}, {"scale": 300.0})
    setup, _ = applied(StandardInputs(), large)
    given: list[Tensor] = []
    setup.module.net[0].register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    trained(setup, 60)
    seen_size = float(given[-1].square().mean().sqrt())
    assert seen_size == pytest.approx(1.0, abs=0.2)
    assert not StandardInputs().applies(seen(source())), "they are standard already"


def test_the_guard_takes_the_monitors_place() -> None:
    plan = {"exploding": ["SkipStep"]}
    made = carry_out(source(depth=6, lr=0.5), Order((Guard("SkipStep", plan),), steps=60), Inspection())
    assert made.lines == ["`Trainer(callbacks=[GradientGuard(prescription={'exploding': ['SkipStep']})])`"]
    assert made.outcome in ("partly repaired", "repaired", "unrepaired")


def test_what_is_tried_leaves_no_trace_in_the_next_module(tmp_path: Path) -> None:
    first = seen(source(depth=5))
    carry_out(source(depth=5), Order((Residual(), Normalisation()), steps=2), first.inspection)
    assert seen(source(depth=5)).ended == first.ended


def test_the_modules_of_the_tests_are_what_they_say() -> None:
    assert isinstance(Scheduled(), DeepNet)
