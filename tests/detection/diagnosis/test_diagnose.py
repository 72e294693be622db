from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks import Alert
from grad_callbacks.detection.diagnosis import CAUSES, ActivationProbe, Case, diagnose, weight_gains
from grad_callbacks.detection.diagnosis.run_context import RunContext
from grad_callbacks.measurement.batch import Batch
from tests.support.diagnosis_cases import (
    Deep,
    Recurrent,
    Residual,
    Run,
    Transformer,
    classes,
    cross_entropy,
    he,
    normal,
    squared_error,
    vanishes,
    xavier,
)

SGD = torch.optim.SGD


def large_biases(layer: nn.Linear) -> None:
    xavier(layer)
    nn.init.normal_(layer.bias, std=5.0)


def negative_biases(layer: nn.Linear) -> None:
    he(layer)
    nn.init.constant_(layer.bias, -20.0 if layer.out_features > 10 else 0.0)


def zero(layer: nn.Linear) -> None:
    normal(0.0)(layer)


VANISHING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "sigmoid_xavier": (lambda: Deep(8, nn.Sigmoid, xavier), "saturated activations"),
    "sigmoid_default": (lambda: Deep(8, nn.Sigmoid), "saturated activations"),
    "sigmoid_function": (lambda: Deep(8, torch.sigmoid, xavier), "saturated activations"),
    "sigmoid_tiny": (lambda: Deep(8, nn.Sigmoid, normal(0.01)), "weights too small"),
    "sigmoid_norm": (lambda: Deep(16, nn.Sigmoid, norm=True), "saturated activations"),
    "tanh_biases": (lambda: Deep(8, nn.Tanh, large_biases), "saturated activations"),
    "tanh_default": (lambda: Deep(24, nn.Tanh), "weights too small"),
    "tanh_deep": (lambda: Deep(60, nn.Tanh, xavier, width=16), "depth without normalisation or skips"),
    "relu_default": (lambda: Deep(24, nn.ReLU), "weights too small"),
    "relu_function": (lambda: Deep(24, torch.relu), "weights too small"),
    "relu_xavier": (lambda: Deep(30, nn.ReLU, xavier), "weights too small"),
    "relu_tiny": (lambda: Deep(6, nn.ReLU, normal(0.01)), "weights too small"),
    "relu_zero": (lambda: Deep(6, nn.ReLU, zero), "weights too small"),
    "gelu_default": (lambda: Deep(24, nn.GELU), "weights too small"),
    "relu_deep": (lambda: Deep(60, nn.ReLU, he, width=16), "depth without normalisation or skips"),
    "relu_dead": (lambda: Deep(6, nn.ReLU, negative_biases), "dead units"),
    "relu_dead_function": (lambda: Deep(6, torch.relu, negative_biases), "dead units"),
}


@pytest.mark.parametrize("name", VANISHING)
def test_why_the_error_dies_out(name: str) -> None:
    make, cause = VANISHING[name]
    run = Run(make()).stop_at(classes())
    alert = run.alert("vanishing")
    found = diagnose(alert, run.case())
    assert found.cause == cause, found
    assert found.message.startswith("seen; ")
    assert all(math.isfinite(value) for value in found.evidence.values())
    assert "norm" in found.evidence
    probe = ActivationProbe(run.model)
    probe.attach()
    run.model(run.batch[0])
    probe.detach()
    assert diagnose(alert, run.case(replay=None, activations=probe)).cause == cause, "without a replay"


@pytest.mark.parametrize("name", ["sigmoid_xavier", "relu_default", "tanh_default", "relu_xavier"])
def test_these_really_vanish(name: str) -> None:
    assert vanishes(Run(VANISHING[name][0]()).stop_at(classes()))


def test_dead_units_are_seen_in_the_profile_alone() -> None:
    run = Run(Deep(6, nn.ReLU, negative_biases)).stop_at(classes())
    for parameter in run.model.blocks.parameters():  # type: ignore[union-attr]
        parameter.grad = torch.zeros_like(parameter)
    assert diagnose(run.alert("vanishing"), run.case(replay=None)).cause == "dead units"


def test_the_message_tells_the_truth_about_sigmoid() -> None:
    run = Run(Deep(8, nn.Sigmoid, xavier)).stop_at(classes())
    found = diagnose(run.alert("vanishing"), run.case())
    assert "slope is at most 1/4" in found.message
    assert found.evidence["activation_slope"] == pytest.approx(0.236, rel=0.05)
    assert found.evidence["mean_field_factor"] == pytest.approx(0.236, rel=0.05)
    assert found.evidence["saturated_share"] < 0.01
    first, *others = found.advice.split("; ")
    assert first.startswith("`nn.Sigmoid()` at blocks.0.activation -> `nn.ReLU()`")
    assert "`nn.init.kaiming_normal_(blocks.0.linear.weight, nonlinearity='relu')`" in others[0]
    assert "`nn.BatchNorm1d(64)` after blocks.0.linear" in found.advice


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_time_is_deep_too(kind: type[nn.RNNBase]) -> None:
    run = Run(Recurrent(kind, radius=0.5 if kind is nn.RNN else None)).stop_at(classes(time=40))
    found = diagnose(run.alert("vanishing"), run.case())
    assert found.cause == "recurrence over many steps"
    assert found.evidence["through_time"] < 1e-3
    if kind is nn.RNN:
        assert found.evidence["spectral_radius"] == pytest.approx(0.5, rel=1e-4)


def test_a_loop_written_by_hand_is_recurrence() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.head = nn.Linear(16, 16), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(20):
                x = torch.tanh(self.step(x))
            return self.head(x)  # type: ignore[no-any-return]

    run = Run(Loop()).stop_at(classes())
    assert diagnose(run.alert("vanishing"), run.case()).cause == "recurrence over many steps"


def test_a_post_norm_transformer_without_warm_up() -> None:
    model = Transformer()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    run = Run(model, optimizer=adam).train([classes(i, time=8) for i in range(3)]).stop_at(classes(9, time=8))
    for kind in ("vanishing", "exploding"):
        assert diagnose(run.alert(kind), run.case()).cause == "missing warm-up"  # type: ignore[arg-type]
    adam.param_groups[0]["lr"] = 1e-3
    falling = replace(run.case(), first_rates=(1e-2,))
    assert diagnose(run.alert("vanishing"), falling).cause == "missing warm-up"
    rising = replace(run.case(), first_rates=(1e-4,))
    assert diagnose(run.alert("exploding"), rising).cause == "learning rate too high"
    torch.optim.lr_scheduler.LinearLR(adam, start_factor=0.1)
    assert diagnose(run.alert("exploding"), run.case()).cause == "learning rate too high"


@pytest.mark.parametrize(("rates", "lacks_warm_up"), [((1e-4, 1e-2, 1e-6), False), ((1e-2, 1e-4, 1e-6), True)])
def test_a_rate_that_has_come_down_again_was_warmed_up(rates: tuple[float, ...], lacks_warm_up: bool) -> None:
    model = Transformer()
    optimizer = torch.optim.Adam(model.parameters())
    run = Run(model, optimizer=optimizer).stop_at(classes(9, time=8))
    batch = Batch(run.batch, 9, run.case().replay)
    follower, resumed = RunContext(model), RunContext(model)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        follower.note(run.reading, batch, [rate])
    resumed.load_state_dict(follower.state_dict())
    alert = replace(run.alert("vanishing"), cause="saturated activations")
    for each in (follower, resumed):
        found = each.look_into(alert, run.reading, optimizer, [rates[-1]], batch, is_late=False)
        assert (found.cause == "missing warm-up") is lacks_warm_up


def test_a_pre_norm_transformer_needs_none() -> None:
    model = Transformer(norm_first=True)
    run = Run(model, optimizer=torch.optim.Adam(model.parameters(), lr=1.0)).stop_at(classes(time=8))
    assert diagnose(run.alert("exploding"), run.case()).cause == "learning rate too high"


def targets_of_a_thousand(seed: int = 0) -> tuple[Tensor, Tensor]:
    inputs, _ = classes(seed)
    return inputs, 1000 * inputs[:, :10]


STARTS: dict[str, tuple[Callable[[], nn.Module], Any, Callable[[int], Any], str]] = {
    "relu_large": (lambda: Deep(6, nn.ReLU, normal(0.6)), cross_entropy, classes, "weights too large"),
    "tanh_large": (lambda: Deep(10, nn.Tanh, normal(0.6)), cross_entropy, classes, "weights too large"),
    "residual": (lambda: Residual(50), cross_entropy, classes, "unscaled residual branches"),
    "residual_large": (lambda: Residual(12, init=normal(0.8)), cross_entropy, classes, "weights too large"),
    "targets": (lambda: Deep(2, nn.ReLU), squared_error, targets_of_a_thousand, "targets or loss too large"),
    "targets_residual": (lambda: Residual(6), squared_error, targets_of_a_thousand, "targets or loss too large"),
    "factor": (
        lambda: Deep(2, nn.ReLU),
        lambda model, batch: 1e5 * cross_entropy(model, batch),
        classes,
        "targets or loss too large",
    ),
    "sum": (
        lambda: Deep(2, nn.ReLU),
        lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"),
        classes,
        "targets or loss too large",
    ),
    "rate": (lambda: Deep(4, nn.ReLU, he), cross_entropy, classes, "learning rate too high"),
    "rate_residual": (lambda: Residual(3, init=None), cross_entropy, classes, "learning rate too high"),
    "rate_regression": (
        lambda: Deep(4, nn.ReLU, he),
        squared_error,
        lambda seed: (classes(seed)[0], classes(seed)[0][:, :10]),
        "learning rate too high",
    ),
}


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", STARTS)
def test_why_the_gradient_explodes_at_the_start(name: str, steps: int) -> None:
    make, loss, batch, cause = STARTS[name]
    model = make()
    gains = weight_gains(model)
    run = Run(model, loss, SGD(model.parameters(), lr=30.0 if "rate" in name else 1e-4))
    run.train([batch(step) for step in range(steps)]).stop_at(batch(10))
    found = diagnose(run.alert("exploding"), run.case(first_gains=gains))
    assert found.cause == cause, found
    if cause == "learning rate too high":
        assert found.evidence["step_overshoots"] == 1
        assert found.evidence.get("curvature_times_rate", math.inf) > 2
        assert "lr=30 -> " in found.advice


def test_an_rnn_explodes_through_time() -> None:
    run = Run(Recurrent(radius=2.0)).stop_at(classes(time=30))
    found = diagnose(run.alert("exploding"), run.case())
    assert found.cause == "recurrence over many steps"
    assert "gradient_clip_val" in found.advice.split("; ")[0]


def trained(steps: int = 30, lr: float = 0.05) -> Run:
    model = Deep(3, nn.ReLU, he)
    run = Run(model, optimizer=SGD(model.parameters(), lr=lr, momentum=0.9))
    return run.train([classes(step) for step in range(steps)])


def test_a_rate_that_is_raised_in_mid_run() -> None:
    run = trained()
    run.optimizer.param_groups[0]["lr"] = 5.0
    run.stop_at(classes(99))
    found = diagnose(run.alert("exploding", "warning"), run.case())
    assert found.cause == "learning rate too high"
    assert "SGD" in found.advice
    run.optimizer.step()
    found = diagnose(run.stop_at(classes(100)).alert("exploding", "warning"), run.case())
    assert found.cause == "learning rate too high", "the loss jumps here, but that of the batch before has jumped too"
    assert found.evidence["loss_ratio_of_last_step"] > 2


@pytest.mark.parametrize("seed", range(3))
def test_a_corrupt_batch_is_told_from_a_rate_too_high(seed: int) -> None:
    run = trained()
    inputs, targets = classes(50 + seed)
    wrong = torch.randint(10, targets.shape)
    run.stop_at((30 * torch.randn_like(inputs), wrong))
    case = run.case(batch_index=30)
    warning = run.alert("exploding", "warning")
    found = diagnose(warning, case)
    assert found.cause == "bad batch"
    assert found.evidence["batch_index"] == 30
    assert found.evidence["batch_loss_ratio"] > 2
    assert "batch 30" in found.message
    assert diagnose(warning, replace(case, replay=None, replay_previous=None)).cause == "bad batch"
    run.optimizer.step()
    after = run.stop_at(classes(60))
    later = diagnose(after.alert("exploding"), after.case(earlier=[found]))
    assert later.cause == "bad batch", "what follows within the episode is its consequence"
    assert "since step 30: batch 30 is unlike the others" in later.message
    assert later.evidence["batch_loss_ratio"] == found.evidence["batch_loss_ratio"]
    again = diagnose(after.alert("nonfinite"), after.case(earlier=[found, later]))
    assert again.cause in ("bad batch", "a guess")


def test_wrong_targets_alone_are_a_bad_batch() -> None:
    run = trained(60)
    inputs, targets = classes(70)
    run.stop_at((inputs, (targets + 5) % 10))
    found = diagnose(run.alert("exploding", "warning"), run.case())
    assert found.cause == "bad batch"
    assert found.evidence["batch_loss_deviations"] > 6


def with_nan(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs, targets = batch
    inputs[0, 0] = math.nan
    return inputs, targets


def test_nan_in_the_inputs_is_a_bad_batch() -> None:
    run = trained().stop_at(with_nan(classes(40)))
    found = diagnose(run.alert("nonfinite"), run.case(batch_index=4))
    assert found.cause == "bad batch"
    assert found.evidence["batch_nonfinite"] == 1


def log_of_zero(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model, batch) + model(batch[0]).relu().log().mean()


def root_of_zero(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    rows = model(batch[0])
    return cross_entropy(model, batch) + (rows[:, None] - rows[None]).square().sum(dim=2).sqrt().mean()


def mean_of_nothing(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), torch.full_like(batch[1], -100))


@pytest.mark.parametrize(
    ("loss", "named"), [(log_of_zero, "`log`"), (root_of_zero, "`SqrtBackward0`"), (mean_of_nothing, "nll_loss")]
)
def test_an_undefined_operation_is_named(loss: Any, named: str) -> None:
    run = trained()
    run.loss = loss
    run.stop_at(classes(40))
    found = diagnose(run.alert("nonfinite"), run.case())
    assert found.cause == "undefined operation"
    assert named in found.message


def test_overflow_in_half_precision() -> None:
    model = Deep(3, nn.ReLU, normal(4.0))
    run = Run(model, lambda model, batch: autocast(cross_entropy)(model, batch)).stop_at(classes())
    found = diagnose(run.alert("nonfinite"), run.case())
    assert found.cause == "16-bit overflow"
    assert "65504" in found.message
    assert "bf16-mixed" in found.advice
    reading = replace(run.reading, overflow=True)
    assert diagnose(run.alert("nonfinite"), Case(model, reading)).cause == "16-bit overflow"


def autocast(loss: Any) -> Any:
    def half(*arguments: Any) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return loss(*arguments)  # type: ignore[no-any-return]

    return half


def test_a_diverged_run_is_blamed_on_the_rate() -> None:
    model = Deep(3, nn.ReLU, he)
    run = Run(model, optimizer=SGD(model.parameters(), lr=50.0))
    for step in range(20):
        run.stop_at(classes(step))
        if not run.reading.is_finite:
            break
        run.optimizer.step()
    assert not run.reading.is_finite
    assert diagnose(run.alert("nonfinite"), run.case()).cause == "learning rate too high"
    assert diagnose(run.alert("nonfinite"), run.case(replay=None)).cause == "learning rate too high"


def test_weights_that_were_bad_before() -> None:
    run = trained()
    with torch.no_grad():
        run.model.head.bias[0] = math.inf  # type: ignore[union-attr, index, operator]
    run.stop_at(classes(40))
    found = diagnose(run.alert("nonfinite"), run.case())
    assert found.cause == "non-finite weights"
    exploded = replace(run.alert("exploding"), cause="bad batch", step=25)
    assert diagnose(run.alert("nonfinite"), run.case(earlier=[exploded])).cause == "bad batch"


def test_the_alert_comes_back_as_it_was_where_nothing_is_known() -> None:
    run = trained().stop_at(classes(40))
    alert = run.alert("nonfinite")
    assert diagnose(alert, Case(run.model)) == alert


def test_an_alert_of_an_unknown_kind_keeps_its_own_cause() -> None:
    run = trained().stop_at(classes(40))
    for alert in (run.alert("moonstruck"), replace(run.alert("moonstruck"), cause="bad batch")):
        assert diagnose(alert, run.case()) is alert


def test_a_case_that_breaks_every_probe_breaks_no_training() -> None:
    class Hostile(nn.Linear):
        def named_modules(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no")

    alert = Alert("exploding", "critical", 3, (), "seen", {}, "a guess", "look")
    assert diagnose(alert, Case(Hostile(2, 2))) == alert


def test_a_replay_that_fails_leaves_the_rest() -> None:
    def fail() -> Tensor:
        raise RuntimeError("out of memory")

    run = Run(Deep(8, nn.Sigmoid, xavier)).stop_at(classes())
    assert diagnose(run.alert("vanishing"), run.case(replay=fail)).cause == "saturated activations"


@pytest.mark.parametrize("kind", ["vanishing", "exploding", "nonfinite"])
def test_late_or_blind_it_says_what_it_can(kind: Any) -> None:
    run = trained().stop_at(classes(40))
    run.optimizer.step()
    for options in ({"is_late": True}, {"is_late": True, "replay": None}, {"replay": None, "optimizer": None}):
        found = diagnose(run.alert(kind), run.case(**options))
        assert found.cause in (*CAUSES, "a guess")
    assert diagnose(run.alert(kind), Case(run.model)).cause in (*CAUSES, "a guess")


def test_a_step_that_was_taken_is_seen_in_its_own_loss() -> None:
    run = trained()
    run.optimizer.param_groups[0]["lr"] = 5.0
    run.stop_at(classes(99)).optimizer.step()
    found = diagnose(run.alert("exploding"), run.case(is_late=True))
    assert found.cause == "learning rate too high"
    assert found.evidence["loss_ratio_of_step"] > 2


def test_it_is_the_same_every_time() -> None:
    model = Transformer()
    run = Run(model, optimizer=torch.optim.Adam(model.parameters(), lr=0.5)).stop_at(classes(time=8))
    told = {str(diagnose(run.alert("exploding"), run.case()).to_dict()) for _ in range(3)}
    assert len(told) == 1


def test_units_that_were_killed_in_training_are_blamed_on_the_rate() -> None:
    model = Deep(4, nn.ReLU, he)
    gains = weight_gains(model)
    run = Run(model, optimizer=torch.optim.Adam(model.parameters(), lr=1.0)).train([classes(i) for i in range(25)])
    with torch.no_grad():
        for block in model.blocks:
            block["linear"].bias.fill_(-1e6)  # type: ignore[index]
    found = diagnose(run.stop_at(classes()).alert("vanishing"), run.case(first_gains=gains))
    assert found.cause == "learning rate too high"
    assert found.evidence["dead_share"] == 1


def test_an_rnn_that_a_high_rate_has_broken() -> None:
    model = Recurrent()
    gains = weight_gains(model)
    run = Run(model, optimizer=SGD(model.parameters(), lr=30.0)).train([classes(i, time=20) for i in range(3)])
    run.stop_at(classes(5, time=20))
    assert diagnose(run.alert("exploding"), run.case(first_gains=gains)).cause == "learning rate too high"
