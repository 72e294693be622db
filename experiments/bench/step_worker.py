"""Times steps with the build of the plugin that stands in ``PYTHONPATH``; driven by :mod:`experiments.bench.builds`.

Run as a script, and imports nothing else of ``experiments``: beside an older build that would be older, too. Each line
of the input is a JSON list of a function below and its arguments, each line of the output its result.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from grad_callbacks import Engine, GradientGuard, GradientMonitor, Prescription

VARIANTS: dict[str, Callable[[], list[Callback]]] = {
    "bare": list,
    "monitor": lambda: [GradientMonitor()],
    "guard": lambda: [GradientGuard()],
}
WIDTH, BATCH = 64, 64
VOCABULARY = 2048


class Still(torch.optim.Adam):
    """Moves nothing, with its hooks."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do nothing."""


class Residual(nn.Module):
    """A stack of linear layers with residual connections, through which a gradient comes whatever the depth."""

    def __init__(self, layers: int, width: int = WIDTH // 4) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Add each layer's share."""
        for layer in self.layers:
            inputs = inputs + layer(inputs.relu()) / len(self.layers)
        return inputs


def plain(layers: int) -> nn.Module:
    """A plain ReLU network, initialised as He et al. (2015) say."""
    made = [module for _ in range(layers) for module in (nn.Linear(WIDTH, WIDTH), nn.ReLU())][:-1]
    for module in made[::2]:
        nn.init.kaiming_normal_(module.weight)  # type: ignore[arg-type]
    return nn.Sequential(*made)


class Lstm(LightningModule):
    """An LSTM of 16 units over 24 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 1)

    def batch(self) -> Tensor:
        """Draw a batch."""
        return torch.randn(32, 24, 8)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Learn the mean of the sequence."""
        found: Tensor = self.head(self.net(batch)[0][:, -1])
        return (found - batch.mean(dim=(1, 2))[:, None]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Transformer(LightningModule):
    """A pre-norm transformer of 6M parameters, with one sequence of 64 tokens a step."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 256)
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True, norm_first=True)
        self.net = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(256, VOCABULARY)

    def batch(self) -> Tensor:
        """Draw a batch."""
        return torch.randint(VOCABULARY // 16, (1, 65))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Predict the next token."""
        found = self.head(self.net(self.embed(batch[:, :-1])))
        return nn.functional.cross_entropy(found.flatten(0, 1), batch[:, 1:].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain 13": lambda: plain(13),
    "plain 4": lambda: plain(4),
    "residual 75": lambda: Residual(75),
    "residual 500": lambda: Residual(500),
}
TRAININGS: dict[str, Callable[[], LightningModule]] = {"lstm": Lstm, "transformer": Transformer}


class Clock(Callback):
    """Notes the thread's processor time at the start of each batch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Note it."""
        self.times.append(time.thread_time())


def fit(case: str, variant: str, steps: int) -> list[float]:
    """Train, and return the seconds of each step."""
    torch.manual_seed(0)
    module: Any = TRAININGS[case]()
    batches = [module.batch() for _ in range(steps + 1)]
    mine, clock = VARIANTS[variant](), Clock()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=steps + 1,
        callbacks=[clock, *mine],
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    if any(each.alerts for each in mine if isinstance(each, GradientMonitor)):
        raise RuntimeError(f"{case}: this run should be healthy")
    return [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]


class Added:
    """Engines without and with the default prescription beside a bare step and ``clip_grad_norm_``, in turns."""

    def __init__(self, case: str) -> None:
        torch.manual_seed(0)
        self.model = NETWORKS[case]()
        self.inputs = torch.randn(BATCH, getattr(self.model, "width", WIDTH))
        parameters = list(self.model.parameters())
        bare = Still(parameters)
        engines = [Engine(self.model, Still(parameters), prescription=each) for each in (None, Prescription())]
        self.engines = dict(zip(("monitor", "guard"), engines, strict=True))
        self.calls: dict[str, Callable[[Tensor], object]] = {
            "bare": lambda loss: bare.step(),
            "clip": lambda loss: nn.utils.clip_grad_norm_(parameters, 1e9),
        }
        for name, engine in self.engines.items():
            self.calls[name] = lambda loss, engine=engine: (engine.before_step(loss=loss), engine.optimizer.step())  # type: ignore[misc]

    def round(self, steps: int) -> dict[str, float]:
        """Return for each variant the seconds of a step."""
        total = dict.fromkeys(self.calls, 0.0)
        for _ in range(steps):
            for name, call in self.calls.items():
                self.model.zero_grad()
                loss = self.model(self.inputs + 0.05 * torch.randn_like(self.inputs)).square().mean()
                loss.backward()
                started = time.thread_time()
                call(loss)
                total[name] += time.thread_time() - started
        if any(engine.record.alerts for engine in self.engines.values()):
            raise RuntimeError("this run should be healthy")
        return {name: seconds / steps for name, seconds in total.items()}


_ADDED: dict[str, Added] = {}


def added(case: str, steps: int) -> dict[str, float]:
    """Return the seconds of a step before and in the optimizer, in the same run as the call before."""
    if case not in _ADDED:
        _ADDED.clear()
        _ADDED[case] = Added(case)
    return _ADDED[case].round(steps)


def main() -> None:
    """Answer each line."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "grad_callbacks"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed
    functions: dict[str, Callable[..., Any]] = {"fit": fit, "added": added}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answers.write(json.dumps(functions[name](*arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
