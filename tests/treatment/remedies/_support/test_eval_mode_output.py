"""An operation that is undefined in training, and not there in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from grad_callbacks import GradientGuard
from grad_callbacks.measurement.batch import tensors_in
from grad_callbacks.treatment.remedies._support.eval_mode_output import undefined_in_training
from grad_callbacks.treatment.remedies._support.forward_masks import IN_EVALUATION, ForwardMasks
from tests.support.helpers import batches, fit, hooks, trainer
from tests.support.undefined_operation import Broken

Change = Callable[[Tensor], Any]
PLACE = "output of model.1"
UNDEFINED = torch.tensor([[-1.0, 1.0], [1.0, 2.0]])


class Noise(nn.Module):
    """Changes its input, in training one way and in evaluation another."""

    def __init__(self, in_training: Change = torch.sqrt, in_evaluation: Change = lambda x: x) -> None:
        super().__init__()
        self.in_training, self.in_evaluation = in_training, in_evaluation
        self.is_on = True
        self.calls: list[bool] = []

    def forward(self, x: Tensor) -> Any:
        self.calls.append(self.training)
        if not self.is_on:
            return x
        return self.in_training(x) if self.training else self.in_evaluation(x)


def noisy() -> Broken:
    """From step 20 on the noise is undefined in training."""
    torch.manual_seed(0)
    return Broken(nn.Sequential(nn.Linear(4, 16), Noise(torch.log), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)))


def test_it_learns_with_what_it_is_evaluated_with() -> None:
    module, guard = noisy(), GradientGuard()
    trainer(guard).fit(module, batches(120), batches(4))
    [made] = guard.interventions
    assert (made.step, made.remedy, made.detail["places"]) == (20, "MaskUndefined", f"{PLACE} as in evaluation")
    assert module.validated[-1] < 0.2 * module.validated[0]
    assert module.errors[-1] < 0.2 * module.errors[0]
    assert guard.outcome == "repaired"
    assert hooks(module) == 0


def test_resumed_it_is_masked_from_the_first_forward_pass_on(tmp_path: Path) -> None:
    whole, untouched = GradientGuard(), noisy()
    fit(untouched, whole, data=batches(60))
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=40)
    fit(noisy(), GradientGuard(), saver, data=batches(60), enable_checkpointing=True, max_steps=40)
    [checkpoint] = tmp_path.glob("*.ckpt")
    resumed, continued = GradientGuard(), noisy()
    trainer(resumed).fit(continued, batches(60), ckpt_path=checkpoint, weights_only=True)
    assert resumed.interventions == whole.interventions
    assert continued.errors == untouched.errors[40:]


def test_a_tensor_that_is_finite_stays_what_training_makes_of_it() -> None:
    model, masks = nn.Sequential(Noise()), ForwardMasks()
    masks.places = {"output of 0": IN_EVALUATION}
    masks.attach(model)
    finite = torch.tensor([[1.0, 4.0]])
    assert torch.equal(model(finite), finite.sqrt())
    assert torch.equal(model(UNDEFINED), UNDEFINED)
    assert model[0].training
    assert model[0].calls == [True, False, True, False]
    model.eval()
    assert torch.equal(model(finite), finite)
    assert model[0].calls[4:] == [False], "in evaluation it is called once"


@pytest.mark.parametrize(
    ("in_evaluation", "found"),
    [
        (lambda x: x, True),
        (lambda x: x.double(), True),
        (torch.sqrt, False),
        (lambda x: x[:1], False),
        (lambda x: (x, x), False),
        (lambda x: x.detach(), False),
        (lambda x: x.nothing, False),
        (lambda x: x.mul_(2), False),
    ],
    ids=["", "precision", "undefined", "shape", "structure", "nothing to learn", "an error", "changes its input"],
)
def test_what_is_given_in_evaluation_must_fit_into_the_place(in_evaluation: Change, found: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Noise(in_evaluation=in_evaluation))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))

    def replay() -> Tensor:
        """Accepts whatever comes."""
        return torch.stack([tensor.double().sum() for tensor in tensors_in(model(UNDEFINED))]).sum()

    assert undefined_in_training(model, replay) == (["1"] if found else [])
    assert all(module.training for module in model.modules())
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("replay", "found"),
    [
        (lambda model: model(UNDEFINED).sum(), ["1"]),
        (lambda model: model(UNDEFINED.abs()).sum(), []),
        (lambda model: model("no tensor"), []),
    ],
    ids=["found", "all is finite", "an error"],
)
def test_modules_are_found_by_running_a_batch(replay: Any, found: list[str]) -> None:
    model = nn.Sequential(nn.Identity(), Noise(), nn.Linear(2, 1))
    assert undefined_in_training(model, lambda: replay(model)) == found
    assert undefined_in_training(model, None) == []
    assert hooks(model) == 0


def test_an_overflow_is_no_undefined_operation() -> None:
    model = Noise(lambda x: torch.stack([x * 1e30, x / 0]), lambda x: torch.stack([x, x]))
    assert undefined_in_training(model, lambda: model(torch.ones(2)).sum()) == []


def test_a_module_that_would_run_anything_twice_is_left_out() -> None:
    class Block(Noise):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x: Tensor) -> Any:
            return super().forward(self.norm(x))

    model = nn.Sequential(Block(), nn.Identity())
    assert undefined_in_training(model, lambda: model(UNDEFINED).sum()) == []
    model = nn.Sequential(Noise())
    model[0].register_forward_pre_hook(lambda module, args: (args[0] - 10,))
    assert undefined_in_training(model, lambda: model(UNDEFINED).sum()) == []


@pytest.mark.parametrize("in_evaluation", [lambda x: (x, x), lambda x: x.nothing], ids=["structure", "an error"])
def test_a_later_output_that_does_not_fit_is_left_as_it_is(in_evaluation: Change) -> None:
    model, masks = nn.Sequential(Noise()), ForwardMasks()
    masks.places = {"output of 0": IN_EVALUATION}
    masks.attach(model)
    model[0].in_evaluation = in_evaluation
    assert torch.isnan(model(UNDEFINED)).any()
    assert torch.equal(model(UNDEFINED.abs()), UNDEFINED.abs().sqrt())
    assert model[0].training


def test_of_several_tensors_those_are_replaced_that_are_not_finite() -> None:
    model, masks = (
        nn.Sequential(Noise(lambda x: {"a": x.sqrt(), "b": x + 1}, lambda x: {"a": x, "b": x})),
        ForwardMasks(),
    )
    masks.places = {"output of 0": IN_EVALUATION}
    masks.attach(model)
    given = model(UNDEFINED)
    assert torch.equal(given["a"], UNDEFINED)
    assert torch.equal(given["b"], UNDEFINED + 1)


def test_one_net_may_need_both_ways() -> None:
    module, guard = noisy(), GradientGuard()
    module.model = nn.Sequential(*module.model[:3], Noise(torch.sqrt, torch.sqrt), *module.model[3:])
    module.model[3].is_on = False
    module.model[1].register_forward_hook(lambda noise, *_: setattr(module.model[3], "is_on", noise.is_on))
    fit(module, guard, data=batches(120))
    [made] = guard.interventions
    places = made.detail["places"].split(", ")
    assert places[0] == f"{PLACE} as in evaluation"
    assert places[1].startswith("output of model.3 at least ")
    assert module.errors[-1] < 0.5 * module.errors[0]
