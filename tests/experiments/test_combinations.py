"""Combinations that make no sense are refused with a sentence; the others do what they say."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hydra import compose
from torch import nn

from experiments import inits
from experiments.corpus import CONF
from experiments.corpus.scenarios import configs
from experiments.models import Convolutional
from experiments.models.norms import ChannelsLast, group_norm, image_norm
from experiments.run import run
from experiments.settings import ConfigError

QUIET = ["logger=none", "guard=none", "trainer=steps", "trainer.max_steps=2", "trainer.enable_progress_bar=false"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["model=convolutional", "norm=layer"],
            r"Convolutional does not use LayerNorm: add \+model.norm='\$\{norm\}'",
        ),
        (["model=recurrent", "norm=batch", "data=pixel_digits"], "what is normal at one step of a sequence is not"),
        (["model=transformer", "norm=rms", "data=text", "task=language"], "layer norms of its own"),
        (
            ["model=recurrent", "init=lsuv", "data=pixel_digits"],
            "init: Recurrent does not use LSUV: .*model.recurrent_init",
        ),
        (
            ["model=recurrent", "activation=gelu", "data=pixel_digits"],
            "activation is part of its cell: model.cell=tanh",
        ),
        (["model=linear", "init=xavier"], "init: Linear does not use xavier: leave out init"),
        (["init=fixup"], "init: Fixup starts residual branches at zero, and this net has none"),
        (["init=fixup", "model=residual_mlp", "norm=batch"], "init: Fixup takes the place of a normalisation"),
        (["norm=group", "model.width=20"], "groups must be a divisor of the width 20, got 8"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(overrides: list[str], reason: str) -> None:
    with configs(CONF):
        cfg = compose("config", overrides=[*QUIET, *overrides])
    with pytest.raises(ConfigError, match=reason):
        run(cfg)


@pytest.mark.parametrize(
    "overrides",
    [
        ["init=lsuv"],
        ["init=lsuv", "biases=false", "model=convolutional"],
        ["init=fixup", "model=residual_mlp", "model.branch_scale=1.0"],
        ["init=fixup", "model=residual_convolutional"],
        ["norm=group"],
        ["norm=rms", "model=residual_mlp"],
        ["norm=batch", "model=convolutional", "+model.norm=${norm}"],
        ["model=recurrent", "data=pixel_digits"],
    ],
)
def test_what_makes_sense_trains(overrides: list[str]) -> None:
    with configs(CONF):
        assert run(compose("config", overrides=[*QUIET, *overrides])).quality >= 0


def test_every_config_that_ships_makes_sense() -> None:
    """The check reads the model's and the groups' names, so composing is enough."""
    from experiments.combinations import check_combination

    with configs(CONF):
        for path in sorted((CONF / "experiment").glob("*.yaml")):
            check_combination(compose("config", overrides=[f"experiment={path.stem}"]))
        for path in sorted((CONF / "experiment" / "syllabus").glob("*.yaml")):
            check_combination(compose("config", overrides=[f"experiment=syllabus/{path.stem}"]))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm, partial(group_norm, groups=2)])
def test_images_are_normalised_as_vectors_are(norm: type[nn.Module]) -> None:
    torch.manual_seed(0)
    images = 5 * torch.randn(6, 8, 3, 3)
    made = image_norm(norm, 8)
    normed = made(images)
    assert normed.shape == images.shape
    assert float(normed.square().mean()) == pytest.approx(1.0, abs=0.01)
    if isinstance(made, ChannelsLast):
        assert torch.allclose(normed[2, :, 1, 1], norm(8)(images[2, :, 1, 1]), atol=1e-6)
    net = Convolutional(64, 10, depth=2, channels=8, activation=nn.ReLU, init=inits.he, norm=norm)  # type: ignore[arg-type]
    assert net(torch.randn(4, 64)).shape == (4, 10)
