"""An operation inside the model that is undefined for some numbers in every batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from grad_callbacks import Batch, Engine, GradientGuard, MaskUndefined
from grad_callbacks.treatment.remedies._support.forward_masks import ForwardMasks, described, undefined_places
from grad_callbacks.treatment.remedies.mask_undefined import MaskUndefinedThresholds
from tests.support.helpers import SGD, Prepared, batches, fit, hooks, mlp, pending, trainer
from tests.support.undefined_operation import ADAM, Broken

Operation = Callable[[Tensor], Tensor]
OPERATIONS: dict[str, Operation] = {"root": torch.sqrt, "log": torch.log, "log of zero": lambda x: x.relu().log()}
MOMENTUM = partial(SGD, lr=0.03, momentum=0.9)


class Applied(nn.Module):
    """Applies an operation."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation
        self.is_on = False

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x) if self.is_on else x


class Between(nn.Module):
    """Two parts of a network, and an operation that is no module between them."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(4, 16, 16), mlp(16, 16, 2)
        self.operation = operation
        self.is_on = False

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return self.decoder(self.operation(features) if self.is_on else features)  # type: ignore[no-any-return]


def within(operation: Operation) -> nn.Sequential:
    """An operation as a module of its own, behind a layer."""
    return nn.Sequential(nn.Linear(4, 16), Applied(operation), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))


def broken(make_model: Callable[[Operation], nn.Module], operation: Operation, make: Any = ADAM) -> Broken:
    torch.manual_seed(0)
    return Broken(make_model(operation), make)


@pytest.mark.numerics
@pytest.mark.parametrize("make", [ADAM, MOMENTUM], ids=["adam", "momentum"])
@pytest.mark.parametrize(
    "operation", [torch.sqrt, torch.log, lambda x: x.relu().log()], ids=["root", "log", "log of 0"]
)
@pytest.mark.parametrize("make_model", [within, Between])
def test_the_rest_of_the_network_goes_on_learning(
    make_model: Callable[[Operation], nn.Module], operation: Operation, make: Any
) -> None:
    module, guard = broken(make_model, operation, make), GradientGuard()
    fit(module, guard, data=batches(150))
    made = guard.interventions[0]
    assert (made.step, made.remedy) == (20, "MaskUndefined")
    place = "output of model.1" if make_model is within else "input of model.decoder"
    assert made.detail["places"].startswith(f"{place} at least ")
    assert sum(module.errors[-10:]) < 0.3 * sum(module.errors[21:31])
    assert hooks(module) == 0


def test_validation_sees_what_the_network_has_learned_with() -> None:
    module = broken(within, torch.sqrt)
    trainer(GradientGuard()).fit(module, batches(100), batches(2))
    assert module.validated[-1] < 0.5


@pytest.mark.parametrize("make_model", [within, Between])
def test_resumed_it_is_masked_from_the_first_forward_pass_on(
    make_model: Callable[[Operation], nn.Module], tmp_path: Path
) -> None:
    whole, untouched = GradientGuard(), broken(make_model, torch.sqrt)
    fit(untouched, whole, data=batches(60))
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=40)
    fit(
        broken(make_model, torch.sqrt),
        GradientGuard(),
        saver,
        data=batches(60),
        enable_checkpointing=True,
        max_steps=40,
    )
    [checkpoint] = tmp_path.glob("*.ckpt")
    resumed, continued = GradientGuard(), broken(make_model, torch.sqrt)
    trainer(resumed).fit(continued, batches(60), ckpt_path=checkpoint, weights_only=True)
    assert resumed.interventions == whole.interventions
    assert continued.errors == untouched.errors[40:]
    for a, b in zip(continued.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_healthy_run_is_left_alone_to_the_bit() -> None:
    def weights(*callbacks: Any) -> list[Tensor]:
        module = broken(within, lambda x: (x.square() + 1).sqrt(), partial(torch.optim.Adam, lr=1e-3))
        fit(module, *callbacks, data=batches(60))
        return [*module.parameters()]

    def mask(remedy: MaskUndefined, model: nn.Module) -> None:
        remedy.places.update({"output of model.1": [2.0, math.inf], "input of model.2": [-math.inf, 0.1]})
        remedy.attach(model)

    for guard in (Prepared(MaskUndefined, mask), GradientGuard()):
        assert all(torch.equal(a, b) for a, b in zip(weights(guard), weights(), strict=True))
        assert guard.interventions == []


class Root(nn.Module):
    """The roots of two numbers times a weight, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 1, bias=False)
        self.root = Applied(torch.sqrt)
        self.root.is_on = True
        nn.init.ones_(self.scale.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.root(self.scale(x)).sum()  # type: ignore[no-any-return]


def test_of_two_numbers_the_finite_one_is_learned_from() -> None:
    model, inputs = Root(), torch.tensor([[-1.0], [4.0]])
    engine = Engine(model, SGD(model.parameters(), lr=0.1), prescription="full")
    for step in range(2):
        loss = model(inputs)
        engine.optimizer.zero_grad()
        engine.before_backward(loss)
        loss.backward()
        if step == 1:
            assert float(loss) == 4.0  # sqrt(1 * 4), and what stands for the other
            assert float(model.scale.weight.grad) == 1.0  # 4 / (2 * sqrt(4)), and nothing of the other
        engine.before_step(loss=loss, batch=Batch(inputs, step, lambda: model(inputs)))
        engine.optimizer.step()
    assert float(model.scale.weight) == pytest.approx(0.9)
    engine.close()
    assert torch.isnan(model(inputs))


def test_above_a_pole_the_bound_is_an_upper_one() -> None:
    model, inputs = Root(), torch.tensor([[0.0], [1.0], [2.0], [4.0], [1e-6], [5.0]])
    model.root.operation = torch.reciprocal
    found = undefined_places(model, lambda: (model(inputs) - 4).abs())
    assert found == {"output of root": [-math.inf, 1.0]}  # of 0.5, 1 and 1e6, the loss is least with 1
    assert described(found) == "output of root at most 1"
    masks = ForwardMasks()
    masks.places = found
    masks.attach(model)
    assert float(model(inputs)) == pytest.approx(1 + 1 + 0.5 + 0.25 + 1 + 0.2)
    assert float(model(inputs[1:])) == float(model.root.operation(inputs[1:]).sum())  # all is finite


def test_a_copy_takes_nobody_elses_masks_away() -> None:
    model, masks = Root(), ForwardMasks()
    masks.places = {"output of root": [0.5, math.inf], "output of what is gone": [0.0, math.inf]}
    masks.attach(model)
    masks.attach(model)  # once more is as good as once
    assert hooks(model) == 1
    other = copy.deepcopy(masks)
    other.detach()
    assert hooks(model) == 1
    other.attach(model)
    assert hooks(model) == 2
    masks.detach()
    other.detach()
    assert hooks(model) == 0


def test_a_trial_leaves_no_mask_behind() -> None:
    module, guard = broken(within, torch.sqrt), GradientGuard({"nonfinite": ["SkipStep", "MaskUndefined"]}, trial=True)
    fit(module, guard, data=batches(60))
    assert [made.remedy for made in guard.interventions] == ["MaskUndefined"]
    assert hooks(module) == 0


class Attending(nn.Module):
    """Scores of which one is left out by an infinity, of what may be the root of a negative number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.root, self.scores = nn.Linear(2, 3), Applied(torch.sqrt), Applied(self.left_out)
        self.scores.is_on = True
        with torch.no_grad():
            self.layer.weight.fill_(1.0)
            self.layer.bias.copy_(torch.tensor([0.0, 1.0, -9.0]))

    @staticmethod
    def left_out(x: Tensor) -> Tensor:
        return torch.cat([x[:, :2], torch.full_like(x[:, :1], -torch.inf)], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.root(self.layer(x))).softmax(1)  # type: ignore[no-any-return]


def test_infinities_of_a_purpose_stay() -> None:
    model = Attending()
    model.root.is_on = True
    inputs = torch.tensor([[-1.0, 0.0], [1.0, 2.0]])
    engine = Engine(model, SGD(model.parameters(), lr=0.1), prescription="full")
    loss = model(inputs)[:, 0].sum()
    loss.backward()
    engine.before_step(loss=loss, batch=Batch(inputs, 0, lambda: model(inputs)[:, 0].sum()))
    [made] = engine.record.interventions
    assert made.remedy == "MaskUndefined"
    assert made.detail["places"].startswith("output of root at least ")
    assert "scores" not in made.detail["places"]
    engine.close()


@pytest.mark.parametrize("inputs", [torch.tensor([[torch.nan], [1.0]]), torch.tensor([[-1e30], [1e30]])])
def test_nothing_is_masked_for_what_came_with_the_data_or_overflows(inputs: Tensor) -> None:
    model = Root()
    assert undefined_places(model, lambda: model(inputs)) is None


def test_hardly_anything_left_is_nothing_to_learn_from() -> None:
    model = Root()
    few = torch.tensor([[1.0]] + [[-1.0]] * 19)
    assert undefined_places(model, lambda: model(few)) is None
    assert undefined_places(model, lambda: model(few[:3])) == {"output of root": [1.0, math.inf]}
    assert undefined_places(model, lambda: model(few[:1])) == {}
    assert undefined_places(model, None) is None
    assert undefined_places(model, lambda: model("no tensor")) is None
    nn.init.constant_(model.scale.weight, torch.nan)
    assert undefined_places(model, lambda: model(few[:1])) is None


def test_where_too_much_is_undefined_it_is_not_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = MaskUndefinedThresholds(most_masked=1)  # a place and an operation are two
    monkeypatch.setattr("grad_callbacks.treatment.remedies.mask_undefined.LIMITS", fewer)
    module, guard = broken(within, torch.sqrt), GradientGuard({"nonfinite": ["MaskUndefined", "SkipStep"]})
    fit(module, guard, data=batches(30))
    assert [made.remedy for made in guard.interventions] == ["SkipStep"]
    assert torch.isnan(torch.tensor(module.errors[20:])).all()


def test_a_released_mask_is_gone() -> None:
    model, remedy = Root(), MaskUndefined()
    remedy.places["output of root"] = [0.5, math.inf]
    remedy.attach(model)
    nn.init.ones_(model.scale.weight).grad = torch.ones(1, 1)
    assert float(model(torch.tensor([[-1.0], [4.0]]))) == 2.5
    assert remedy.release(pending(model))
    assert not remedy.release(pending(model))
    assert hooks(model) == 0
