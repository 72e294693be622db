"""What a guard takes of memory and of checkpoints: each training in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.bench.table import Row, Section
from experiments.bench.timing import Spread
from experiments.bench.training import GUARD, MONITOR
from grad_callbacks import GradientGuard, GradientMonitor

BARE = "without a callback"
STEPS = 110  # four snapshots: of steps 0, 24, 49, and one that replaces none yet
PROMISED_PEAK, PROMISED_CHECKPOINT = 1.25, 1.02
SIZES = {"1M": 512, "10M": 1600, "50M": 3536}  # width of four square layers

METHOD = f"""On the CPU, an MLP of four square layers under Adam, {STEPS} steps of 16 rows, each run in a process of its
own, whose peak is what the system says it had resident at most (Python, torch and Lightning alone take some 400 MB).
The guard keeps its snapshots in memory up to a quarter of weights, gradients and optimizer state, at least 64 MiB; the
others are in temporary files. Peaks are compared with the monitor's, checkpoints with those of a run without a
callback."""


class _Square(LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [layer for _ in range(4) for layer in (nn.Linear(width, width, bias=False), nn.ReLU())]
        self.net = nn.Sequential(*layers[:-1])
        self.width = width

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.net(batch), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-5)


def run(quick: bool) -> Section:
    """Train all sizes without a callback, with a monitor and with a guard."""
    rows: list[Row] = []
    for name, width in {"15k": 64}.items() if quick else SIZES.items():
        rows += _compare(name, width, 30 if quick else STEPS)
    return Section("Memory and checkpoints", METHOD, rows)


def _compare(name: str, width: int, steps: int) -> list[Row]:
    found = {how: measure(width, steps, how) for how in (BARE, MONITOR, GUARD)}
    peaks = {how: sizes["peak"] for how, sizes in found.items()}
    saved = {how: sizes["checkpoint"] for how, sizes in found.items()}
    case = f"{name} parameters, peak {_mb(peaks[BARE])}, checkpoint {_mb(saved[BARE])}"
    return [
        Row(f"{case}: peak", MONITOR, BARE, _ratio(peaks[MONITOR], peaks[BARE])),
        Row(f"{case}: peak", GUARD, MONITOR, _ratio(peaks[GUARD], peaks[MONITOR]), PROMISED_PEAK),
        Row(f"{case}: checkpoint", MONITOR, BARE, _ratio(saved[MONITOR], saved[BARE])),
        Row(f"{case}: checkpoint", GUARD, BARE, _ratio(saved[GUARD], saved[BARE]), PROMISED_CHECKPOINT),
    ]


def measure(width: int, steps: int, how: str) -> dict[str, int]:
    """Train in a process of its own; return its peak of resident memory, and the size of its checkpoint, in bytes."""
    command = [sys.executable, "-m", "experiments.bench.memory", str(width), str(steps), how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    sizes: dict[str, int] = json.loads(made.stdout.splitlines()[-1])
    return sizes


def _train(width: int, steps: int, how: str) -> dict[str, int]:
    torch.set_num_threads(1)
    callbacks: list[Callback] = {BARE: list, MONITOR: lambda: [GradientMonitor()], GUARD: lambda: [GradientGuard()]}[
        how
    ]()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(0)
    rows: Any = torch.randn(16 * steps, width)
    trainer.fit(_Square(width), DataLoader(rows, batch_size=16))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        trainer.save_checkpoint(path)
        checkpoint = path.stat().st_size
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "checkpoint": checkpoint}


def _ratio(one: int, other: int) -> Spread:
    return Spread.of([one / other])


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_train(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])) + "\n")
