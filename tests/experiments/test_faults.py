"""Faults, in real training."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments import faults, schedules
from experiments.faults import (
    BadTarget,
    BadValue,
    BrokenLoss,
    BrokenModule,
    CorruptBatch,
    Fault,
    RaisedRate,
    ScaledInputs,
)
from experiments.tasks import Regressor

CONF = Path(__file__).resolve().parents[2] / "conf"


class Witness(Callback):
    """Keeps what each step was trained on, at which rate, and what came of it."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.gradients: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch[0].clone(), batch[1].clone()))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.gradients.append(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))


INPUTS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(24.0)[:, None]


def train(fault: Fault | None, schedule: Any = None, lr: float = 1e-3) -> Witness:
    """Train for six steps on batches of four, always in the same order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    task = Regressor(model, partial(torch.optim.SGD, lr=lr), schedule)
    witness = Witness()
    callbacks: list[Callback] = [witness] if fault is None else [fault, witness]
    trainer = Trainer(
        accelerator="cpu",
        max_steps=6,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=4))
    return witness


BATCH_FAULTS = [
    CorruptBatch(step=2, steps=2),
    BadValue(step=2, steps=2, value=math.nan),
    BadTarget(step=2, steps=2, value=-9999.0),
    ScaledInputs(step=2, steps=2, factor=10.0),
]


@pytest.mark.parametrize("fault", BATCH_FAULTS, ids=lambda fault: type(fault).__name__)
def test_only_the_batches_in_question_are_changed(fault: Fault) -> None:
    changed = []
    for step, (inputs, targets) in enumerate(train(fault).batches):
        rows = slice(4 * step, 4 * step + 4)
        changed.append(not (inputs.equal(INPUTS[rows]) and targets.equal(TARGETS[rows])))
    assert changed == [False, False, True, True, False, False]


def test_a_corrupt_batch_is_noise_with_the_targets_of_others() -> None:
    inputs, targets = train(CorruptBatch(step=1, factor=1000.0)).batches[1]
    assert 300 < float(inputs.std()) < 2000
    assert sorted(targets.flatten().tolist()) == TARGETS[4:8].flatten().tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_a_bad_value_fills_the_rows_it_is_asked_for(value: float) -> None:
    inputs, _ = train(BadValue(step=1, value=value, rows=2)).batches[1]
    assert torch.full((2, 3), value).equal(inputs[:2]) or bool(inputs[:2].isnan().all())
    assert inputs[2:].equal(INPUTS[6:8])


def test_a_bad_target_leaves_the_inputs_alone() -> None:
    inputs, targets = train(BadTarget(step=1, value=-9999.0)).batches[1]
    assert inputs.equal(INPUTS[4:8])
    assert targets.flatten().tolist() == [-9999.0, 5.0, 6.0, 7.0]


def test_the_data_themselves_are_not_changed() -> None:
    before = INPUTS.clone(), TARGETS.clone()
    train(ScaledInputs(step=0))
    assert (INPUTS.equal(before[0]), TARGETS.equal(before[1])) == (True, True)


def test_a_rate_is_raised_and_taken_back() -> None:
    assert train(RaisedRate(step=2, factor=10.0, steps=3)).rates == pytest.approx([1e-3] * 2 + [1e-2] * 3 + [1e-3])


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.cosine,
        partial(schedules.warmup, rise=3),
        partial(schedules.one_cycle, peak=5.0),
        schedules.exponential,
    ],
    ids=["cosine", "warmup", "one_cycle", "exponential"],
)
def test_a_schedule_goes_on_from_the_raised_rate(schedule: Any) -> None:
    plain, raised = train(None, schedule).rates, train(RaisedRate(step=2, factor=10.0), schedule).rates
    assert [b / a for a, b in zip(plain[1:], raised[1:], strict=True)] == pytest.approx([1.0] + [10.0] * 4)


@pytest.mark.parametrize(
    ("term", "loss_is_finite"), [("log_of_zero", False), ("root_of_zero", True), ("mean_of_nothing", False)]
)
def test_a_broken_loss_has_a_gradient_that_is_not_finite_from_its_step_on(term: str, loss_is_finite: bool) -> None:
    witness = train(BrokenLoss(step=3, term=getattr(faults, term)))
    assert [bool(gradient.isfinite().all()) for gradient in witness.gradients] == [True] * 3 + [False] * 3
    assert math.isfinite(witness.losses[3]) == loss_is_finite


def test_a_loss_is_what_it_was_but_for_the_term() -> None:
    plain = train(None).losses
    broken = train(BrokenLoss(step=5, term=lambda outputs: 0 * outputs.sum() + 3.0, weight=2.0)).losses
    assert broken[:5] == plain[:5]
    assert broken[5] == pytest.approx(plain[5] + 6.0)


def test_a_broken_module_breaks_training_only() -> None:
    witness = train(BrokenModule(step=3, module="model.1", operation=torch.log))
    assert [math.isfinite(loss) for loss in witness.losses] == [True] * 3 + [False] * 3


def test_a_module_is_whole_outside_of_training() -> None:
    fault = BrokenModule(step=0, module="model", operation=torch.zeros_like)
    task = Regressor(nn.Linear(3, 1), partial(torch.optim.SGD, lr=0.1))
    trainer = Trainer(accelerator="cpu", callbacks=[fault], logger=False, enable_progress_bar=False)
    fault.on_fit_start(trainer, task)
    assert not task.model.train()(INPUTS).any()
    assert task.model.eval()(INPUTS).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": -1}, "step must be a whole number of at least 0, got -1"),
        ({"step": "soon"}, "step must be a whole number of at least 0, got 'soon'"),
        ({"step": 0, "steps": 0}, "steps must be a whole number of at least 1, got 0"),
    ],
)
def test_a_wrong_step_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorruptBatch(**arguments)


@pytest.mark.parametrize("path", sorted(CONF.glob("fault/*.yaml")), ids=lambda path: path.stem)
def test_every_fault_can_be_made_from_its_config(path: Path) -> None:
    config = OmegaConf.load(path)
    if OmegaConf.is_missing(config, "module"):
        config.module = "model"  # a scenario says which
    fault = instantiate(config)
    assert isinstance(fault, Fault) if path.stem != "none" else fault.fault is None
