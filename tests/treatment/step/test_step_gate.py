"""A step that is skipped does not reach the optimizer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks import Engine, GradientGuard
from tests.support.helpers import Poisoned, fit, mlp


class Counting(torch.optim.SGD):
    """Counts its steps in the group, decays weights without a gradient, and refuses to step with none at all."""

    def __init__(self, parameters: Any, lr: float = 0.05) -> None:
        super().__init__(parameters, lr)
        for group in self.param_groups:
            group["k"] = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if all(p.grad is None for group in self.param_groups for p in group["params"]):
            raise ValueError("there is nothing to step with")
        with torch.no_grad():
            for group in self.param_groups:
                group["k"] += 1
                for parameter in group["params"]:
                    parameter.mul_(0.999).sub_(group["lr"] * parameter.grad)
        return loss


def test_in_a_trainer_it_is_as_if_the_batch_had_not_been() -> None:
    def run(factor: float) -> tuple[Poisoned, Counting]:
        torch.manual_seed(0)
        module = Poisoned(mlp(4, 8, 2), Counting, factors={10: factor, 20: factor})
        trainer = fit(module, GradientGuard(), max_steps=30)
        return module, trainer.optimizers[0]  # type: ignore[return-value]

    (_, counted), (_, untouched) = run(torch.nan), run(1.0)
    assert (counted.param_groups[0]["k"], untouched.param_groups[0]["k"]) == (28, 30)


@pytest.mark.parametrize("in_closure", [True, False])
def test_in_a_loop_the_weights_stay_and_hooks_are_called(in_closure: bool) -> None:
    torch.manual_seed(0)
    model = mlp(4, 8, 2)
    optimizer, called = Counting(model.parameters()), [0, 0]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
    engine = Engine(model, optimizer, prescription={"nonfinite": ["SkipStep"]})
    optimizer.register_step_pre_hook(lambda *_: called.__setitem__(0, called[0] + 1))
    optimizer.register_step_post_hook(lambda *_: called.__setitem__(1, called[1] + 1))

    def closure(step: int = 0) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (model(torch.ones(2, 4)) * (torch.nan if step == 0 else 1.0)).square().mean()
        loss.backward()
        engine.before_step(loss=loss)
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a scheduler that sees no step
        for step in range(3):
            before = copy.deepcopy(model.state_dict())
            if in_closure:
                loss = optimizer.step(lambda step=step: closure(step))
                assert isinstance(loss, Tensor)
            else:
                closure(step)
                optimizer.step()
            assert all(torch.equal(before[key], now) for key, now in model.state_dict().items()) == (step == 0)
            scheduler.step()
    assert optimizer.param_groups[0]["k"] == 2
    assert called == [3, 3]
    engine.close()
    optimizer.zero_grad()
    with pytest.raises(ValueError, match="nothing to step with"):
        optimizer.step()


def test_an_optimizer_that_moves_the_weights_before_its_closure_moves_them_back() -> None:
    class Sharp(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            parts = self.param_groups[0]["params"]
            for part in parts:
                part.add_(1.0)
            with torch.enable_grad():
                loss = closure()
            for part in parts:
                part.sub_(1.0)
            super().step()
            return loss

    model = nn.Linear(4, 2)
    optimizer = Sharp(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    engine = Engine(model, optimizer, prescription={"nonfinite": ["SkipStep"]})

    def closure() -> Tensor:
        loss: Tensor = model(torch.full((2, 4), torch.nan)).sum()
        loss.backward()
        engine.before_step(loss=loss)
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(model.state_dict(), before)


def test_a_scheduler_made_later_and_a_copy_of_the_optimizer_go_on_working() -> None:
    model = mlp(4, 8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = Engine(model, optimizer, prescription={"nonfinite": ["SkipStep"]})
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    twin, copied = copy.deepcopy((model, optimizer))
    for step in range(2):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).sum() * (torch.nan if step else 1.0)
        loss.backward()
        engine.before_step(loss=loss)
        optimizer.step()
        scheduler.step()
    engine.close()
    before = copy.deepcopy((model.state_dict(), twin.state_dict()))
    twin(torch.ones(2, 4)).sum().backward()
    copied.step()
    torch.testing.assert_close(model.state_dict(), before[0], rtol=0, atol=0)
    assert not torch.equal(twin[0].weight, before[1]["0.weight"])
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before[0]["0.weight"])
