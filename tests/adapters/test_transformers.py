"""The callbacks in transformers' own Trainer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from grad_callbacks.adapters.transformers import GuardCallback, MonitorCallback  # noqa: E402  # only where it is

STEPS = 24


class Texts(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Sequences in which each word follows from the one before."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        words = (place + torch.arange(16)) % 32
        return {"input_ids": words, "labels": words}


class Spoilt(transformers.Trainer):  # type: ignore[misc, name-defined, unused-ignore]
    """Multiplies the loss of one step."""

    factor = 1.0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == 12 and self.factor != 1:
            for parameter in self.model.parameters():
                parameter.grad.mul_(self.factor)
        return loss


def trained(tmp_path: Any, *callbacks: Any, factor: float = 1.0, **options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=16, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    settings = {
        "output_dir": str(tmp_path),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 6,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = transformers.TrainingArguments(**(settings | options))
    run = Spoilt(
        model=transformers.GPT2LMHeadModel(config), args=args, train_dataset=Texts(), callbacks=list(callbacks)
    )
    run.factor = factor
    run.train()
    return run


def weights(run: Any) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in run.model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("clip", [1.0, 0.0])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_healthy_training_is_the_same_to_the_bit(clip: float, accumulated: int, tmp_path: Any) -> None:
    options = {"max_grad_norm": clip, "gradient_accumulation_steps": accumulated}
    guard = GuardCallback()
    bare, guarded = trained(tmp_path, **options), trained(tmp_path, guard, **options)
    assert all(map(torch.equal, weights(bare), weights(guarded)))
    assert guarded.args.max_grad_norm == clip
    assert guard.verdict == guard.outcome == "healthy"
    assert sorted(set(guard.history()["step"])) == list(range(STEPS))
    logged = [entry for entry in guarded.state.log_history if "grad/norm" in entry]
    assert len(logged) >= STEPS // 6
    # what the Trainer logs as its norm before clipping is what was read, at the step of the entry before its number
    norms = {entry["step"] - 1: entry["grad_norm"] for entry in bare.state.log_history if "grad_norm" in entry}
    table = guard.step_series.to_frame().set_index("step")["norm"]
    assert all(table[step] == pytest.approx(float(norm), rel=1e-4) for step, norm in norms.items())
    if accumulated == 1 and clip:
        losses = [entry["loss"] for entry in bare.state.log_history if "loss" in entry]
        read = guard.step_series.to_frame()["loss"]
        assert read[:6].mean() == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_skipped(tmp_path: Any) -> None:
    guard = GuardCallback()
    run = trained(tmp_path, guard, factor=math.nan)
    assert [(made.step, made.remedy) for made in guard.interventions] == [(12, "SkipStep")]
    assert all(weight.isfinite().all() for weight in weights(run))
    assert guard.verdict == "nonfinite"
    assert "SkipStep" in guard.report()
    lost = trained(tmp_path, MonitorCallback(), factor=math.nan)
    assert not all(weight.isfinite().all() for weight in weights(lost)), "without the guard"


@pytest.mark.slow
def test_a_spike_is_read_before_the_trainer_clips_it(tmp_path: Any) -> None:
    seen: list[Any] = []
    monitor = MonitorCallback(on_alert=seen.append)
    trained(tmp_path, monitor, factor=1e4)
    norms = monitor.step_series.to_frame().set_index("step")
    assert norms["norm"][12] > 100
    assert norms["norm_clipped"][12] == pytest.approx(1.0)
    assert monitor.alerts == seen


@pytest.mark.slow
def test_a_second_training_begins_a_new_record_and_lets_go_of_the_model(tmp_path: Any) -> None:
    monitor = MonitorCallback()
    trained(tmp_path, monitor, factor=math.nan)
    first = monitor.record
    run = trained(tmp_path, monitor)
    assert monitor.record is not first
    assert monitor.verdict == "healthy"
    assert not run.model._forward_hooks


def test_deepspeed_is_refused() -> None:
    class Arguments:
        deepspeed = "settings.json"

    with pytest.raises(ValueError, match="DeepSpeed does not expose the gradients"):
        MonitorCallback().on_train_begin(Arguments(), None, None)
