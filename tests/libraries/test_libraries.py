"""The guard in trainings of other libraries: no alert when healthy, and the same weights to the bit.

Each is run where its library is installed; ``docs/libraries.md`` has the versions tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn

from grad_callbacks import GradientGuard

pytestmark = pytest.mark.slow
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
BARE = {**QUIET, "logger": False, "enable_checkpointing": False}
Trained = tuple[nn.Module, Any]  # the model, and the callback that has seen the training
WAVE = np.sin(np.arange(200) / 7)


def neuralforecast(callbacks: list[Any]) -> Trained:
    from neuralforecast import NeuralForecast
    from neuralforecast.models import NHITS

    days = pd.date_range("2020", periods=200, freq="D")
    model = NHITS(h=7, input_size=21, max_steps=30, random_seed=1, callbacks=callbacks, **BARE)
    forecast = NeuralForecast(models=[model], freq="D")
    forecast.fit(pd.DataFrame({"unique_id": "a", "ds": days, "y": WAVE}))
    assert len(forecast.predict()) == 7
    [model] = forecast.models
    return model, next(iter(model.trainer_kwargs["callbacks"]), None)  # a copy of the callback


def darts(callbacks: list[Any]) -> Trained:
    from darts import TimeSeries
    from darts.models import NBEATSModel

    settings = {"num_stacks": 2, "num_blocks": 1, "num_layers": 2, "layer_widths": 32, "n_epochs": 3, "random_state": 1}
    model = NBEATSModel(21, 7, pl_trainer_kwargs={**QUIET, "callbacks": callbacks}, **settings)
    model.fit(TimeSeries.from_values(WAVE.astype(np.float32)))
    assert len(model.predict(7)) == 7
    return model.model, next(iter(callbacks), None)


def pytorch_forecasting(callbacks: list[Any]) -> Trained:
    from pytorch_forecasting import NHiTS, TimeSeriesDataSet

    table = pd.DataFrame({"group": "a", "time": np.arange(200), "y": WAVE})
    columns = {"time_idx": "time", "target": "y", "group_ids": ["group"], "time_varying_unknown_reals": ["y"]}
    data = TimeSeriesDataSet(table, max_encoder_length=21, max_prediction_length=7, **columns)
    model = NHiTS.from_dataset(data, learning_rate=1e-3, hidden_size=32, log_interval=-1)
    loader = data.to_dataloader(train=True, batch_size=16, num_workers=0)
    Trainer(max_epochs=2, callbacks=callbacks, **BARE).fit(model, loader)
    return model, next(iter(callbacks), None)


def gluonts(callbacks: list[Any]) -> Trained:
    from gluonts.dataset.common import ListDataset
    from gluonts.torch import SimpleFeedForwardEstimator

    settings = {**BARE, "enable_checkpointing": True, "max_epochs": 2, "callbacks": callbacks}
    estimator = SimpleFeedForwardEstimator(
        prediction_length=7, context_length=21, num_batches_per_epoch=15, trainer_kwargs=settings
    )
    predictor = estimator.train(ListDataset([{"start": "2020-01-01", "target": WAVE + 2}], freq="D"))
    return predictor.prediction_net, next(iter(callbacks), None)


def chemprop(callbacks: list[Any]) -> Trained:
    from chemprop import data, models
    from chemprop import nn as parts

    molecules = ["CCO", "CCN", "CCC", "c1ccccc1", "CC(=O)O", "CCCl", "CCBr", "CNC", "COC", "CCCC", "CCCCO", "CC=O"] * 8
    points = [data.MoleculeDatapoint.from_smi(text, np.array([float(len(text))])) for text in molecules]
    dataset = data.MoleculeDataset(points)
    dataset.normalize_targets()
    model = models.MPNN(parts.BondMessagePassing(d_h=32), parts.MeanAggregation(), parts.RegressionFFN(input_dim=32))
    loader = data.build_dataloader(dataset, batch_size=8, shuffle=False)
    Trainer(max_epochs=3, callbacks=callbacks, **BARE).fit(model, loader)
    return model, next(iter(callbacks), None)


def lightly(callbacks: list[Any]) -> Trained:
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead

    class SimCLR(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            convolution = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            self.model = nn.Sequential(*convolution, SimCLRProjectionHead(8, 16, 8))
            self.criterion = NTXentLoss()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.criterion(*map(self.model, batch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.06)

    images = torch.randn(128, 3, 16, 16)
    views = torch.utils.data.TensorDataset(images, images + 0.1 * torch.randn_like(images))
    model = SimCLR()
    Trainer(max_epochs=4, callbacks=callbacks, **BARE).fit(model, torch.utils.data.DataLoader(views, batch_size=16))
    return model, next(iter(callbacks), None)


def torch_geometric(callbacks: list[Any]) -> Trained:
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import GCNConv, global_mean_pool

    class Graphs(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = GCNConv(4, 16), GCNConv(16, 16), nn.Linear(16, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            hidden = self.second(self.first(batch.x, batch.edge_index).relu(), batch.edge_index).relu()
            return nn.functional.mse_loss(self.head(global_mean_pool(hidden, batch.batch)).squeeze(1), batch.y)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    nodes = [torch.randn(6, 4) for _ in range(96)]
    graphs = [Data(x=x, edge_index=torch.randint(6, (2, 12)), y=x.mean().reshape(1)) for x in nodes]
    model = Graphs()
    Trainer(max_epochs=4, callbacks=callbacks, **BARE).fit(model, DataLoader(graphs, batch_size=16))
    return model, next(iter(callbacks), None)


def peft(callbacks: list[Any]) -> Trained:
    import peft as adapters
    import transformers

    class Tuned(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=32, n_layer=2, n_head=2)
            lora = adapters.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
            self.model = adapters.get_peft_model(transformers.GPT2LMHeadModel(config), lora)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(input_ids=batch, labels=batch).loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW((p for p in self.parameters() if p.requires_grad), lr=1e-3)

    texts = (torch.randint(32, (128, 1)) + torch.arange(16)) % 32
    model = Tuned()
    Trainer(max_epochs=4, callbacks=callbacks, **BARE).fit(model, torch.utils.data.DataLoader(texts, batch_size=16))
    return model, next(iter(callbacks), None)


LIBRARIES: list[Callable[[list[Any]], Trained]] = [
    *(neuralforecast, darts, pytorch_forecasting, gluonts, chemprop, lightly, torch_geometric, peft)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("train", LIBRARIES, ids=lambda train: train.__name__)
def test_a_healthy_training_has_no_alert_and_the_same_weights(
    train: Callable[[list[Any]], Trained], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(train.__name__)
    monkeypatch.chdir(tmp_path)
    ended = []
    for callbacks in ([], [GradientGuard()]):
        seed_everything(1, verbose=False)
        model, guard = train(callbacks)
        ended.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(map(torch.equal, *ended))
    assert guard.verdict == "healthy", guard.alerts
    assert len(set(guard.history()["step"])) >= 16
