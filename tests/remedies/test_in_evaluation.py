"""An operation that is undefined in training, and not there in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from grad_callbacks import GradientGuard, MaskUndefined
from grad_callbacks.remedies.forward_masks import IN_EVALUATION, ForwardMasks
from grad_callbacks.remedies.in_evaluation import undefined_in_training
from tests.helpers import Regression, batches, fit, trainer

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


class Noisy(Regression):
    """From step 20 on the noise is undefined in training; batches depend on the step only."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 16), Noise(torch.log), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
        super().__init__(net, lambda p: torch.optim.Adam(p, lr=0.01))
        self.errors: list[float] = []
        self.validated: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.model[1].is_on = self.global_step >= 20
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(self.global_step))
        loss = nn.functional.mse_loss(self.model(inputs), inputs[:, :2])
        self.errors.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validated.append(float(nn.functional.mse_loss(self.model(batch[0]), batch[0][:, :2])))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_it_learns_with_what_it_is_evaluated_with() -> None:
    module, guard = Noisy(), GradientGuard()
    trainer(guard).fit(module, batches(120), batches(4))
    [made] = guard.interventions
    assert (made.step, made.remedy, made.detail["places"]) == (20, "MaskUndefined", f"{PLACE} as in evaluation")
    assert module.validated[-1] < 0.2 * module.validated[0]
    assert module.errors[-1] < 0.2 * module.errors[0]
    assert guard.outcome == "repaired"
    assert hooks(module) == 0


def test_resumed_it_is_masked_from_the_first_forward_pass_on(tmp_path: Path) -> None:
    whole, untouched = GradientGuard(), Noisy()
    fit(untouched, whole, data=batches(60))
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=40)
    fit(Noisy(), GradientGuard(), saver, data=batches(60), enable_checkpointing=True, max_steps=40)
    [checkpoint] = tmp_path.glob("*.ckpt")
    resumed, continued = GradientGuard(), Noisy()
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


def test_parts_of_the_module_go_on_training() -> None:
    class Wrapped(Noise):
        def __init__(self) -> None:
            super().__init__()
            self.part = Noise(torch.abs, torch.neg)

        def forward(self, x: Tensor) -> Any:
            return super().forward(self.part(x) - 2)

    model, masks = nn.Sequential(Wrapped()), ForwardMasks()
    masks.places = {"output of 0": IN_EVALUATION}
    masks.attach(model)
    assert torch.equal(model(UNDEFINED), UNDEFINED.abs() - 2)
    assert model[0].part.calls == [True, True]


@pytest.mark.parametrize(
    "in_evaluation",
    [torch.sqrt, lambda x: x.sum(), lambda x: (x, x), lambda x: x.double(), lambda x: x.detach(), lambda x: x.nothing],
    ids=["undefined", "another shape", "another structure", "another type", "nothing to learn", "an error"],
)
def test_a_module_whose_evaluation_is_no_help_is_bounded(in_evaluation: Change) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), Noise(torch.sqrt, in_evaluation), nn.Linear(2, 1))
    inputs = torch.tensor([[-1.0, 1.0], [1.0, 2.0], [3.0, -4.0]])
    assert undefined_in_training(model, lambda: model(inputs).sum()) == []
    assert all(module.training for module in model.modules())
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("replay", "found"),
    [
        (lambda model: model(UNDEFINED).sum(), ["1"]),
        (lambda model: model(UNDEFINED).sum() / 0, []),
        (lambda model: model(UNDEFINED.abs()).sum(), []),
        (lambda model: model("no tensor"), []),
    ],
    ids=["found", "the loss is undefined", "all is finite", "an error"],
)
def test_modules_are_found_where_that_is_all_it_takes(replay: Any, found: list[str]) -> None:
    model = nn.Sequential(nn.Identity(), Noise(), nn.Linear(2, 1))
    assert undefined_in_training(model, lambda: replay(model)) == found
    assert undefined_in_training(model, None) == []
    assert hooks(model) == 0


def test_where_it_is_the_output_that_changes_later_the_step_is_skipped() -> None:
    model, masks = nn.Sequential(Noise()), ForwardMasks()
    masks.places = {"output of 0": IN_EVALUATION}
    masks.attach(model)
    model[0].in_evaluation = lambda x: (x, x)
    assert torch.isnan(model(UNDEFINED)).any()


def test_copied_states_name_the_modules() -> None:
    remedy, other = MaskUndefined(), MaskUndefined()
    remedy.places[PLACE] = IN_EVALUATION
    other.load_state_dict(remedy.state_dict())
    assert other.places == {PLACE: []}
