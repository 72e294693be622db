"""The tasks with the models and data that they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor, nn

from experiments.data import AlteredDigits, Plane, Ratings, StagedDigits, Tabular, Waves, Words
from experiments.models import Branches, Experts, Flow
from experiments.run import Result, run
from experiments.tasks.adversarial import energy_distance
from experiments.tasks.criteria import one_hot_error

CONF = Path(__file__).resolve().parents[2] / "conf"


class Watch(Callback):
    """What a test needs to know of each step: the loss, and the norm of each parameter's gradient, if it has one."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[dict[str, float]] = []
        self.module: LightningModule | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.module = pl_module
        self.start = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        named = pl_module.model.named_parameters()
        self.norms.append({name: float(p.grad.norm()) for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def moved(self, part: str) -> bool:
        assert self.module is not None
        now = self.module.state_dict()
        return any(not torch.equal(value, now[name]) for name, value in self.start.items() if part in name)


def config(*overrides: str) -> DictConfig:
    fixed = ["guard=none", "logger=none", "trainer=steps", "trainer.enable_progress_bar=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*fixed, *overrides])


def train(steps: int, *overrides: str) -> tuple[Result, Watch]:
    watch = Watch()
    result = run(config(f"trainer.max_steps={steps}", *overrides), [watch])
    return result, watch


@pytest.mark.parametrize(
    ("overrides", "quality"),
    [
        ("task=reconstruction model=autoencoder optimizer=adam optimizer.lr=3e-3", 0.3),
        ("task=variational model=vae optimizer=adam optimizer.lr=3e-3", 0.05),
        ("task=density model=flow data=plane optimizer=adam optimizer.lr=5e-3", 0.1),
        ("task=regressor model=factors data=ratings optimizer=adam optimizer.lr=0.03", 0.5),
        ("task=gaussian_regressor model=linear data=line optimizer=adam optimizer.lr=0.1", 0.9),
        ("task=criterion_regressor task.criterion._target_=torch.nn.HuberLoss model=linear data=line", 0.9),
        ("task=criterion_classifier task.criterion._target_=torch.nn.MultiMarginLoss model.depth=2", 0.7),
        ("task=two_tasks model=two_heads optimizer=adam", 0.7),
        ("task=triplet model.depth=2 optimizer=adam", 0.8),
        ("task=bandit model.depth=1 optimizer=adam optimizer.lr=1e-2", 0.3),
        ("model=experts optimizer=adam optimizer.lr=5e-3", 0.7),
        ("model=bag_of_words data=words optimizer=adam optimizer.lr=3e-2", 0.5),
        ("model=linear data=tabular", 0.9),
        ("model=linear data=tabular data.name=diabetes task=regressor optimizer.lr=0.01", 0.2),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_task_is_learnt_in_part_in_a_few_steps(overrides: str, quality: float) -> None:
    result, _ = train(60, *overrides.split())
    assert quality < result.quality <= 1


def test_adversaries_take_turns_and_generate_what_they_saw() -> None:
    overrides = "task=adversarial task.generator_rate=0.25 model=gan data=plane activation=leaky_relu optimizer=adam"
    settings = ["optimizer.lr=2e-3", "+optimizer.betas=[0.5,0.999]", "trainer.val_check_interval=200"]
    result, watch = train(400, *overrides.split(), *settings)
    assert len(watch.norms) == 400, "two steps a batch"
    assert result.quality > 0.5
    assert watch.moved("generator")
    assert watch.moved("discriminator")


def test_the_energy_distance_tells_clouds_apart() -> None:
    points = torch.randn(500, 2)
    assert energy_distance(points, points) == pytest.approx(0, abs=1e-6)
    assert energy_distance(torch.randn(500, 2), points) < 0.05
    assert energy_distance(points + 10, points) == pytest.approx(2 * 10 * 2**0.5, rel=0.2)


def test_the_divergence_of_a_variational_autoencoder_comes_and_goes() -> None:
    _, watch = train(80, *["task=variational", "task.period=40", "model=vae", "optimizer=adam", "optimizer.lr=5e-3"])
    assert watch.losses[60] > 1.2 * watch.losses[59]


def test_one_hot_error_is_that_of_the_vectors() -> None:
    outputs = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert one_hot_error(outputs, torch.tensor([0, 1])) == pytest.approx((0 + 0 + 0.25 + 0.25) / 4)


FINE = ["data=shifted_digits", "task=fine_tuning", "task.source_steps=100", "model.depth=3"]


def test_fine_tuning_starts_from_a_trained_model() -> None:
    result, watch = train(5, *FINE, "data.mirrored=false", "optimizer.lr=1e-6")
    assert watch.losses[0] < 0.5
    assert result.quality > 0.85


def test_what_is_frozen_stays_and_a_new_head_is_drawn() -> None:
    _, watch = train(5, *FINE, "data.mirrored=false", "task.redrawn=[head]", "task.frozen=[blocks]")
    assert watch.losses[0] > 1.5
    assert set(watch.norms[0]) == {"head.weight", "head.bias"}
    assert watch.moved("head")
    assert not watch.moved("blocks")


def test_layers_thaw_from_the_last_to_the_first() -> None:
    _, watch = train(30, *FINE, "task.frozen=[blocks.0,blocks.1,blocks.2]", "task.thaw_every=8")
    learning = [sum("blocks" in name for name in norms) for norms in watch.norms]
    assert learning == [0] * 8 + [2] * 8 + [4] * 8 + [6] * 6
    assert "blocks.2.linear.weight" in watch.norms[8]


def test_adapters_start_as_nothing_and_learn_alone() -> None:
    overrides = ["model=adapted", "task.fresh=[adapter]", "task.frozen=[base,head]"]
    _, watch = train(5, *FINE, *overrides)
    assert {name.split(".")[3] for name in watch.norms[0]} == {"adapter_a", "adapter_b"}
    first = {name: norm > 0 for name, norm in watch.norms[0].items()}
    assert all(has == ("adapter_b" in name) for name, has in first.items())
    assert all(norm > 0 for norm in watch.norms[1].values())
    assert not watch.moved("base")


@pytest.mark.parametrize(
    "overrides",
    [
        "model=zero_head",
        "model=residual_mlp model._target_=experiments.models.ZeroResidualMLP",
        "model=residual_convolutional model._target_=experiments.models.ZeroResidualConvolutional",
    ],
)
def test_behind_zeros_the_first_gradient_is_zero_and_the_next_is_not(overrides: str) -> None:
    _, watch = train(3, *overrides.split(), "optimizer.lr=0.05")
    silent = {name for name, norm in watch.norms[0].items() if norm == 0}
    assert silent
    assert all(watch.norms[2][name] > 0 for name in silent)


def test_a_spare_expert_has_no_gradient() -> None:
    model = Experts(4, 3, experts=5, spare=2, width=8, activation=nn.ReLU)
    model(torch.randn(64, 4)).square().sum().backward()
    assert all(p.grad is None for expert in model.experts[3:] for p in expert.parameters())
    assert model.gate.weight.grad is not None


def test_experts_answer_each_input_in_its_place() -> None:
    model = Experts(4, 3, experts=3, spare=0, width=8, activation=nn.ReLU)
    x = torch.randn(20, 4)
    assert torch.allclose(model(x), torch.cat([model(row[None]) for row in x]), atol=1e-6)


def test_of_three_branches_one_learns() -> None:
    model = Branches(4, 3, depth=2, width=8, activation=nn.ReLU)
    model(torch.randn(8, 4)).square().sum().backward()

    def norms(branch: nn.Module) -> set[bool | None]:
        return {None if p.grad is None else bool(p.grad.norm() > 0) for p in branch.parameters()}

    assert norms(model.used) == {True}
    assert norms(model.muted) == {False}
    assert norms(model.unused) == {None}


def test_a_flow_is_a_density() -> None:
    model = Flow(2, 2, layers=3, width=8, activation=nn.ReLU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        grid = torch.linspace(-12, 12, 601)
        mass = model(torch.cartesian_prod(grid, grid)).exp().sum() * (24 / 600) ** 2
    assert mass == pytest.approx(1, abs=0.02)


def test_tied_tokens_are_one_parameter() -> None:
    overrides = ["model=transformer", "model._target_=experiments.models.TiedTransformer", "data=text"]
    cfg = config(*overrides, "task=language", "data.batch_size=4")
    data = instantiate(cfg.data)
    model = instantiate(cfg.model, in_features=data.in_features, out_features=data.out_features)
    assert model.head.weight is model.tokens.weight


def test_sparse_rows_are_those_of_the_batch() -> None:
    overrides = ["model=bag_of_words", "model.sparse=true", "data=words", "optimizer.momentum=0"]
    result, _ = train(3, *overrides)
    assert 0 <= result.quality <= 1


def images(data: Any) -> tuple[Tensor, Tensor]:
    batches = list(data.train_dataloader())
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def test_altered_digits_are_altered_as_asked() -> None:
    plain, labels = images(AlteredDigits(batch_size=1))
    assert len(images(AlteredDigits(batch_size=8, size=40))[1]) == 40
    rare = images(AlteredDigits(batch_size=1, rare=0.1))[1]
    assert int((rare < 5).sum()) == int((labels < 5).sum())
    assert int((rare >= 5).sum()) < 0.2 * int((labels >= 5).sum())
    tails = images(AlteredDigits(batch_size=1, tails=1.5))[0]
    assert float(tails.abs().max()) > 5 * float(plain.abs().max())
    wrong = AlteredDigits(batch_size=1, wrong_labels=0.5)._train.tensors[1]
    share = float((wrong != AlteredDigits(batch_size=1)._train.tensors[1]).float().mean())
    assert share == pytest.approx(0.45, abs=0.05)
    assert len(list(AlteredDigits(batch_size=100, drop_last=False).train_dataloader())) == 15


def test_stages_change_the_images_at_their_step() -> None:
    labels = [labels for _, labels in StagedDigits("curriculum", step=4, steps=8).train_dataloader()]
    assert [bool((batch >= 5).any()) for batch in labels] == [False] * 4 + [True] * 4
    sizes = [float(inputs.abs().max()) for inputs, _ in StagedDigits("outlier", step=4, steps=8).train_dataloader()]
    assert sizes.index(max(sizes)) == 4
    assert sorted(sizes)[-2] < sizes[4] / 2
    means = [inputs.mean() for inputs, _ in StagedDigits("small", step=4, steps=8).train_dataloader()]
    assert [torch.isclose(mean, means[0]).item() for mean in means] == [True] * 4 + [False] + [True] * 3


def test_a_target_of_infinite_variance_is_far_out_and_validation_is_clean() -> None:
    clean, tailed = Waves(), Waves(noise=0.1, freedom=1)
    assert torch.equal(clean._val.tensors[1], tailed._val.tensors[1])
    assert float((tailed._train.tensors[1] - clean._train.tensors[1]).abs().max()) > 10


def test_words_and_ratings_have_rare_rows() -> None:
    for rows in (Words()._train.tensors[0], Ratings()._train.tensors[0][:, 0]):
        counts = torch.bincount(rows.flatten())
        assert int((counts <= 3).sum()) > 50
        assert int(counts.max()) > 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plane("square"), "shape must be one of moons, ring, spirals, got 'square'"),
        (lambda: Tabular("boston"), "name must be one of breast_cancer, .*, got 'boston'"),
        (lambda: StagedDigits("late", step=3), "stages must be one of curriculum, small, outlier, got 'late'"),
        (lambda: Waves(batch_size=0), "batch_size must be a whole number from 1 to 2000, got 0"),
        (lambda: AlteredDigits(size=30), "batch_size must be at most the 30 images that are kept, got 64"),
        (lambda: Experts(4, 3, 2, spare=2, width=4, activation=nn.ReLU), "spare must be from 0 to experts - 1, got 2"),
    ],
)
def test_a_wrong_value_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
