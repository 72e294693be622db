"""The papers: each direction in real runs; what they measure in cases that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments import inits
from experiments.corpus import CONF
from experiments.corpus.workers import work_through
from experiments.papers.catalogue import PAPERS
from experiments.papers.measures import Sharpness, spikes
from experiments.papers.report import report
from experiments.papers.runs import collect, jobs, train
from experiments.syllabus.judging import Many
from experiments.syllabus.runs import Outcome

# One seed each: what comes of a corrupt batch, of Adam's spikes and of chaotic states depends on the rounding, too.
BY_CHANCE = {"corrupt_batch", "corrupt_batch_adagc", "adam_spikes", "pascanu2013"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_the_direction_of_the_paper_is_seen(name: str, tmp_path: Path) -> None:
    wanted = jobs([name], [0], tmp_path)
    work_through(train, wanted, 1, CONF)
    (found,) = collect(wanted).values()
    if name not in BY_CHANCE:
        assert PAPERS[name].direction(found), {arm: PAPERS[name].value(many) for arm, many in found.items()}
    assert ("**no**" in report({name: found})) != PAPERS[name].direction(found)
    assert all(job.path.exists() for job in jobs([name], [0], tmp_path)), "found again under the same names"


def test_every_config_has_its_paper() -> None:
    files = {path.stem for path in (CONF / "experiment" / "papers").glob("*.yaml")}
    assert files == {paper.config for paper in PAPERS.values()}


def test_every_run_has_a_file_of_its_own(tmp_path: Path) -> None:
    wanted = jobs(PAPERS, [0, 1], tmp_path)
    assert len({job.path for job in wanted}) == len(wanted) == 2 * sum(len(paper.arms) for paper in PAPERS.values())


def made(arm: str, *qualities: float) -> Many:
    return Many([Outcome(arm, seed, quality, "healthy", "healthy") for seed, quality in enumerate(qualities)])


def test_a_direction_that_is_not_seen_is_said_so_and_an_unfinished_paper_is_left_out() -> None:
    seen = {"xavier": made("xavier", 0.1, 0.2), "he": made("he", 0.95, 0.97), "default": made("default", 0.1, 0.1)}
    told = report({"he2015": seen, "glorot2010": {"tanh": made("tanh", 0.9)}})
    assert "1 of 1 directions are seen; 6 runs" in told
    assert "quality: Xavier 0.15 (0.10–0.20); He 0.96 (0.95–0.97); torch's default 0.10 | 2 |" in told
    assert "Glorot" not in told
    lost = report({"he2015": {**seen, "he": made("he", 0.5, 0.5)}})
    assert "0 of 1 directions are seen" in lost
    assert "**no**" in lost


def test_spikes_that_are_one_behind_the_other_are_one() -> None:
    calm = [1.0] * 30
    assert spikes(calm) == 0
    assert spikes([*calm, 9.0, *calm]) == 0, "nine times is none"
    assert spikes([*calm, 11.0, 50.0, 20.0, *calm]) == 1
    assert spikes([*calm, 11.0, *calm, 11.0, *calm]) == 2
    assert spikes([0.001 * step + 1 for step in range(500)]) == 0, "a slow rise is none"


class Quadratic(LightningModule):
    """Half of ``x A x`` for weights x, by way of a linear layer; its Hessian is A."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 1, bias=False)
        self.loss_factor = 0.5

    @staticmethod
    def criterion(outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.square().sum()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.loss_factor * self.criterion(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.3)


class Axes(LightningDataModule):
    """Three inputs along the axes, of length 1, 2 and 3: A is diagonal with 1, 4 and 9."""

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.zeros(3)), 3)


def test_sharpness_is_the_largest_eigenvalue_and_rises_are_counted() -> None:
    torch.manual_seed(0)
    measure = Sharpness()
    trainer = Trainer(
        max_steps=5, callbacks=[measure], logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(Quadratic(), datamodule=Axes())
    found = measure.measured()
    assert found["sharpness"] == pytest.approx(9.0, rel=1e-4)
    assert found["rises"] == 1.0, "the rate is beyond 2 / 9"


def test_gaussian_weights_have_the_variances_of_the_theory() -> None:
    torch.manual_seed(0)
    for layer in (nn.Linear(400, 300), nn.Conv2d(30, 40, 3)):
        inits.gaussian(layer, weights=1.761, biases=0.05)
        fan_in = layer.weight[0].numel()
        assert fan_in * float(layer.weight.detach().var()) == pytest.approx(1.761, rel=0.05)
    layer = nn.Linear(2, 5000)
    inits.gaussian(layer, biases=0.05)
    assert float(layer.bias.detach().var()) == pytest.approx(0.05, rel=0.1)
    inits.gaussian(nn.Linear(4, 4, bias=False))
