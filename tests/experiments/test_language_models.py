"""Language models, their text, their training and what may be wrong with their batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from experiments.data import Documents
from experiments.data.documents import ALPHABET, VALIDATION, encoded
from experiments.faults import Fault, OutlierLoss, RepeatedToken, ScaledWeights, ShiftedTargets, ShuffledTokens
from experiments.models import GPT, Llama
from experiments.models.language import turned
from experiments.schedules import warmup_cosine
from experiments.tasks import MuonPretraining, Pretraining

SIZE: dict[str, int] = {"context": 8, "depth": 2, "width": 16, "heads": 2}
STYLES: dict[str, Callable[..., nn.Module]] = {"gpt": partial(GPT, **SIZE), "llama": partial(Llama, **SIZE)}


@pytest.mark.parametrize("style", STYLES)
def test_a_language_model_does_not_look_ahead(style: str) -> None:
    model = STYLES[style](11, 11)
    tokens = torch.randint(11, (3, 8))
    logits = model(tokens)
    assert logits.shape == (3, 8, 11)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    torch.testing.assert_close(model(changed)[:, :5], logits[:, :5])
    assert not torch.allclose(model(changed)[:, 5:], logits[:, 5:])
    logits.logsumexp(-1).mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("style", STYLES)
def test_weights_are_drawn_as_in_gpt_2(style: str) -> None:
    make: Any = GPT if style == "gpt" else Llama
    model = make(64, 64, context=8, depth=8, width=64, heads=2)
    assert float(model.tokens.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    for layer in model.layers:
        assert float(layer.attention.query_key_value.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        for end in layer.ends:
            assert float(end.weight.detach().std()) == pytest.approx(0.02 / math.sqrt(16), rel=0.1)
    loss = nn.functional.cross_entropy(model(torch.randint(64, (4, 8))).flatten(0, 1), torch.randint(64, (32,)))
    assert float(loss.detach()) == pytest.approx(math.log(64), abs=0.1)


def test_the_styles_differ_as_they_are_meant_to() -> None:
    gpt, llama = STYLES["gpt"](11, 11), STYLES["llama"](11, 11)
    assert gpt.head.weight is gpt.tokens.weight
    assert llama.head.weight is not llama.tokens.weight
    assert any(name.endswith("bias") for name, _ in gpt.named_parameters())
    assert not any(name.endswith("bias") for name, _ in llama.named_parameters())
    assert not any(isinstance(module, nn.LayerNorm) for module in llama.modules())


def test_a_turn_keeps_lengths_and_tells_distances() -> None:
    query, key = torch.randn(2, 8)
    turns, keys = turned(query.expand(12, 8)), turned(key.expand(12, 8))
    torch.testing.assert_close(turns.norm(dim=1), query.norm().expand(12))
    torch.testing.assert_close(turns[3] @ keys[1], turns[10] @ keys[8], rtol=1e-4, atol=1e-5)
    assert not torch.isclose(turns[3] @ keys[1], turns[10] @ keys[2])


@pytest.mark.parametrize("style", STYLES)
def test_attention_without_scaling_has_larger_scores(style: str) -> None:
    torch.manual_seed(0)
    scaled, unscaled = STYLES[style](11, 11), STYLES[style](11, 11, scaled=False)
    unscaled.load_state_dict(scaled.state_dict())
    assert unscaled.layers[0].attention.scale == pytest.approx(math.sqrt(8) * scaled.layers[0].attention.scale)
    tokens = torch.arange(8)[None]
    assert not torch.allclose(scaled(tokens), unscaled(tokens), atol=1e-9, rtol=1e-9)


# Text


def test_documents_follow_each_other_and_validation_is_kept_from_training() -> None:
    data = Documents(batch_size=4, context=16, steps=3)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    inputs, targets = batches[0]
    assert inputs.shape == targets.shape == (4, 16)
    assert inputs[:, 1:].equal(targets[:, :-1])
    assert int(inputs.max()) < data.in_features == ALPHABET
    held_out = torch.cat([inputs for inputs, _ in data.val_dataloader()])
    assert held_out.numel() == 2 * VALIDATION
    for source, part in zip(encoded("bytes", ALPHABET, 460_000), held_out.flatten().split(VALIDATION), strict=True):
        cut = len(source) * 19 // 20
        assert source[cut : cut + VALIDATION].equal(part)
    assert data._train.tensors[0].numel() <= sum(len(source) * 19 // 20 for source in encoded("bytes", 128, 460_000))


def test_code_comes_after_prose() -> None:
    data = Documents(batch_size=64, context=32, steps=4, code_from=2)
    signs = torch.tensor([ord(sign) for sign in "_=("])
    share = [float(torch.isin(inputs, signs).float().mean()) for inputs, _ in data.train_dataloader()]
    assert max(share[:2]) < min(share[2:])


def test_words_beyond_the_vocabulary_are_one() -> None:
    data = Documents(batch_size=4, context=16, steps=1, tokens="words", vocabulary=50, limit=20_000)
    everything = data._train.tensors[0]
    assert (int(everything.min()), int(everything.max())) == (0, 49)


@pytest.mark.parametrize(("arguments", "named"), [({"context": 0}, "context"), ({"tokens": "letters"}, "tokens")])
def test_a_wrong_choice_of_text_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Documents(**arguments)


# Training


class Seen(Callback):
    """Keeps the batches and the losses."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch[0].clone(), batch[1].clone()))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))


def trained(task: Pretraining, fault: Fault | None = None, batches: int = 6, **options: Any) -> Seen:
    """Train on windows of 8 bytes, always the same."""
    seen = Seen()
    callbacks: list[Callback] = [seen] if fault is None else [fault, seen]
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    steps = batches * (1 if task.automatic_optimization else 2)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        enable_model_summary=False,
        callbacks=callbacks,
        **quiet,
        **options,
    )
    torch.manual_seed(1)
    trainer.fit(task, datamodule=Documents(batch_size=8, context=8, steps=batches, limit=20_000))
    return seen


def pretraining(style: str = "gpt", lr: float = 1e-2, **options: Any) -> Pretraining:
    torch.manual_seed(0)
    return Pretraining(STYLES[style](ALPHABET, ALPHABET), partial(AdamW, lr=lr, weight_decay=0.1), **options)


@pytest.mark.parametrize("style", STYLES)
def test_a_language_model_learns(style: str) -> None:
    seen = trained(pretraining(style, schedule=partial(warmup_cosine, rise=5, start=0.2)), batches=80)
    assert seen.losses[0] == pytest.approx(math.log(ALPHABET), abs=0.1)
    assert sum(seen.losses[-5:]) / 5 < 3.4


def test_vectors_do_not_decay() -> None:
    optimizer = pretraining().make_optimizer()
    for group in optimizer.param_groups:
        assert all((parameter.dim() > 1) == (group["weight_decay"] > 0) for parameter in group["params"])
    assert len(optimizer.param_groups) == 2


def test_muon_has_the_matrices_of_the_layers_and_adamw_all_else() -> None:
    torch.manual_seed(0)
    task = MuonPretraining(
        STYLES["llama"](ALPHABET, ALPHABET), partial(AdamW, lr=1e-2), partial(Muon, lr=0.02), clip=1e-6
    )
    before = {name: parameter.detach().clone() for name, parameter in task.named_parameters()}
    trained(task, batches=4)
    muon, other = task.optimizers()  # type: ignore[misc]
    matrices = {name for name, parameter in task.model.layers.named_parameters() if parameter.dim() == 2}
    assert len(muon.param_groups[0]["params"]) == len(matrices)
    assert sum(len(group["params"]) for group in other.param_groups) == len(before) - len(matrices)
    assert all(not parameter.equal(before[name]) for name, parameter in task.named_parameters())
    grads = [p.grad for group in other.param_groups for p in group["params"]]
    assert float(torch.nn.utils.get_total_norm(grads)) == pytest.approx(1e-6, rel=1e-2)


# Faults


@pytest.mark.parametrize("fault", [RepeatedToken(2, token=7), ShuffledTokens(2), ShiftedTargets(2, offset=3)])
def test_a_fault_of_text_changes_its_step_alone(fault: Fault) -> None:
    usual, hurt = trained(pretraining()).batches, trained(pretraining(), fault).batches
    for step, ((inputs, targets), (others, their_targets)) in enumerate(zip(usual, hurt, strict=True)):
        assert (inputs.equal(others) and targets.equal(their_targets)) == (step != 2)
    (inputs, targets), (others, their_targets) = usual[2], hurt[2]
    if isinstance(fault, RepeatedToken):
        assert bool((others == 7).all())
        assert bool((their_targets == 7).all())
    elif isinstance(fault, ShuffledTokens):
        assert inputs.sort(dim=1).values.equal(others.sort(dim=1).values)
    else:
        assert inputs.equal(others)
        assert targets.equal(their_targets.roll(-3, dims=1))


def test_an_outlier_multiplies_the_loss_of_its_steps_and_leaves_the_tasks_factor() -> None:
    task = pretraining(lr=1e-9, loss_factor=0.5)
    usual, hurt = trained(pretraining(lr=1e-9, loss_factor=0.5)), trained(task, OutlierLoss(2, 100.0, steps=2))
    ratios = [theirs / ours for ours, theirs in zip(usual.losses, hurt.losses, strict=True)]
    assert ratios == pytest.approx([1, 1, 100, 100, 1, 1], rel=1e-3)
    assert task.loss_factor == pytest.approx(0.5)


def test_weights_are_multiplied_once_and_only_those_of_the_share() -> None:
    task, untouched = pretraining(lr=0.0), pretraining(lr=0.0)
    trained(task, ScaledWeights(1, "model.layers.1", factor=10.0, share=0.25))
    for (name, ours), theirs in zip(task.named_parameters(), untouched.parameters(), strict=True):
        changed = ours != theirs
        if name.startswith("model.layers.1.") and ours.dim() > 1:
            torch.testing.assert_close(ours[changed], 10 * theirs[changed])
            assert 0.15 < float(changed.float().mean()) < 0.35
        else:
            assert not bool(changed.any())
