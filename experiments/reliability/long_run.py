"""A benchmark: what grows in a training of 100,000 steps with history and journal, and what does not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.own_time import own_time
from experiments.reliability.prepared import NO_SERVER
from experiments.reliability.results import fingerprint
from experiments.reliability.stores import Server
from experiments.reliability.training import quiet
from experiments.reliability.workplace import Workplace
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger

FILE = "long.json"
BLOCKS = 100  # of a training, each of which gives one sample
PATIENCE = 4 * 3600  # seconds to wait for a training
FLAT = 1.2  # a ratio up to which something counts as flat: medians of steps of 2 ms vary by 10% on a busy machine

METHOD = f"""A network of six linear layers of 32 units with `GradientMonitor()`, the loss logged in every step, the
monitor's scalars every 50 steps. *Time* is the median step of the last tenth of the training against that of the first,
without the time for which other programs had the processor;
*memory* is the process's resident memory at the end, and against that after a tenth of the training; *journal* is its
file; history and page are what the run holds in the end. *Flat* is a ratio of at most {FLAT}."""


class Net(LightningModule):
    """Six linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer for _ in range(5) for layer in (nn.Linear(32, 32), nn.ReLU())))
        self.head = nn.Linear(32, 4)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        features, target = batch
        return nn.functional.mse_loss(self.head(self.layers(features)), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Samples(Callback):
    """Logs a loss in every step, and writes down time, memory and the journal's size once per block.

    Args:
        path: Of the file of samples.
        steps: Of the training.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.block = path, max(10, steps // BLOCKS)
        self._times: list[float] = []
        self._last = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Log, and at the end of a block write a sample."""
        logger = trainer.logger
        assert isinstance(logger, JournaledMLFlowLogger)
        now = own_time()
        if self._last:
            self._times.append(now - self._last)
        self._last = now
        logger.log_metrics({"loss": outputs["loss"]}, trainer.global_step)
        if trainer.global_step % self.block == 0:
            journal = logger.journal_path
            assert journal is not None
            sample = {
                "step": trainer.global_step,
                "seconds": median(self._times),
                "memory": _resident(),
                "journal": journal.stat().st_size if journal.exists() else 0,
            }
            self._times.clear()
            with self.path.open("a") as file:
                file.write(json.dumps(sample) + "\n")


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def train_long(folder: str, uri: str, steps: int) -> None:
    """Train in this process."""
    quiet()
    place = Path(folder)
    torch.manual_seed(0)
    features = torch.randn(512, 32)
    data = DataLoader(TensorDataset(features, features[:, :4].sin()), batch_size=16, shuffle=True)
    logger = JournaledMLFlowLogger("long", tracking_uri=uri, journal_dir=place / "journal", finalize_timeout=60)
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        logger=logger,
        callbacks=[GradientMonitor(), Samples(place / "samples", steps)],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    trainer.fit(Net(), data)
    logger.close()
    os.write(1, b"ended normally\n")


def run(place: Workplace, results: Path, steps: int) -> str:
    """Train with a server, for all steps and a tenth of them, and without one; return the section.

    What an earlier call has measured is not measured again.
    """
    path = results / FILE
    kept = json.loads(path.read_text()) if path.exists() else {}
    rows = kept.get("rows", {}) if kept.get("steps") == steps and kept.get("code") == fingerprint() else {}
    for name, count in (("server up", steps), ("server down", steps), ("server up", steps // 10)):
        key = f"{name}, {count:,} steps"
        if key not in rows:
            rows[key] = _measure(place, key, count, place.server if name == "server up" else None)
            results.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"steps": steps, "code": fingerprint(), "rows": rows}))
    return section(results)


def section(results: Path) -> str:
    """Return the section of the document; empty if nothing was measured."""
    path = results / FILE
    if not path.exists():
        return ""
    kept = json.loads(path.read_text())
    header = ["case", "time of a step", "memory", "journal, largest and at the end", "history", "page"]
    table = [header, ["---"] * len(header), *kept["rows"].values()]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
    return f"## {kept['steps']:,} steps\n\n{METHOD}\n\n{lines}\n"


def _measure(place: Workplace, name: str, steps: int, server: Server | None) -> list[str]:
    place.server.empty()
    folder = place.new_folder()
    folder.mkdir()
    child = place.children.start(train_long, str(folder), NO_SERVER if server is None else server.uri, steps)
    if child.wait(PATIENCE) != 0:
        child.kill()
        return [name, f"did not end: {child.said[-100:]}", "", "", "", ""]
    samples = [json.loads(line) for line in (folder / "samples").read_text().splitlines()]
    tenth = max(1, len(samples) // 10)
    first, last = (median(sample["seconds"] for sample in part) for part in (samples[:tenth], samples[-tenth:]))
    memory, early = samples[-1]["memory"], samples[tenth]["memory"]
    largest, final = max(sample["journal"] for sample in samples), samples[-1]["journal"]
    root = place.server.artifacts if server is not None else folder / "journal"
    return [
        name,
        f"{last * 1000:.2f} against {first * 1000:.2f} ms: {_ratio(last, first)}",
        f"{_size(memory)}: {_ratio(memory, early)}",
        f"{_size(largest)}, {_size(final)}",
        _size(_largest(root, "history.parquet")),
        _size(_largest(root, "run.html")),
    ]


def _ratio(end: float, start: float) -> str:
    ratio = end / start
    return f"**{ratio:.2f}** × ({'flat' if ratio <= FLAT else 'grows'})"


def _largest(root: Path, name: str) -> int:
    return max((file.stat().st_size for file in root.rglob(name)), default=0)


def _size(count: int) -> str:
    if not count:
        return "–"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} KB"
