"""The demo: three scenarios, unguarded, guarded and cured, side by side in a table and in MLflow."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.run import run
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import StoreError, compare, comparison_table, default_store, prepare_store
from grad_callbacks.tracking.comparison.picture import comparison_picture

CONF = Path(__file__).resolve().parent.parent / "conf"
EXPERIMENT = "demo"
PICTURE = "demo.png"

# Scenario, what is changed in the model, guard, and the overrides that make the change.
RUNS: list[tuple[str, str, str, list[str]]] = [
    ("deep_sigmoid", "plain", "none", []),
    ("deep_sigmoid", "plain", "full", []),
    ("deep_sigmoid", "plain", "clip_value", []),
    ("deep_sigmoid", "relu_he", "monitor", ["activation=relu", "init=he", "optimizer.lr=0.02"]),
    ("deep_sigmoid", "batch_norm", "monitor", ["norm=batch"]),
    ("deep_sigmoid", "residual", "monitor", ["model.residual=true"]),
    ("high_lr", "plain", "none", []),
    ("high_lr", "plain", "monitor", []),
    ("high_lr", "plain", "clip_norm", []),
    ("high_lr", "plain", "clip_value", []),
    ("high_lr", "plain", "reduce_lr", []),
    ("high_lr", "plain", "full", []),
    ("healthy", "plain", "none", []),
    ("healthy", "plain", "full", []),
]


def main() -> int:
    """Train all runs, then print the table and how to browse them."""
    console = Console()
    _quiet()
    torch.set_num_threads(1)  # such small networks are slower with more
    started = time.monotonic()
    try:
        client = prepare_store(default_store())
    except StoreError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 2
    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with initialize_config_dir(str(CONF), version_base="1.3"), Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(RUNS))
        for scenario, variant, guard, changes in RUNS:
            progress.update(task, description=f"{scenario}: {variant}, {guard}")
            _train(scenario, variant, guard, changes, progress.console)
            progress.advance(task)
    table = compare(client, EXPERIMENT)
    comparison_picture(table).savefig(PICTURE, dpi=150)
    console.print(comparison_table(table))
    console.print(f"{len(RUNS)} runs in {time.monotonic() - started:.0f} s, drawn in {PICTURE}.")
    console.print("Browse them in MLflow: [bold]make ui[/bold]")
    return 0


def _train(scenario: str, variant: str, guard: str, changes: list[str], console: Console) -> None:
    overrides = [f"experiment={scenario}", f"guard={guard}", f"variant={variant}", *changes]
    overrides += [f"logger.experiment_name={EXPERIMENT}", "trainer.enable_progress_bar=false"]
    result = run(compose("config", overrides=overrides))
    if result.monitor is not None:
        _tell(f"{scenario}, {variant}, guard {guard}", result.monitor, console)


def _tell(name: str, monitor: GradientMonitor, console: Console) -> None:
    """Print the first alert and what was done about it."""
    if not monitor.alerts:
        console.print(f"[green]{name}[/green]: no alert")
        return
    alert = monitor.alerts[0]
    console.print(f"[yellow]{name}[/yellow]: {alert.kind} gradients at step {alert.step}: {alert.message}")
    console.print(f"  layers: {', '.join(alert.layers)}")
    for intervention in monitor.interventions:
        detail = {key: round(value, 3) for key, value in intervention.detail.items() if isinstance(value, float)}
        console.print(f"  step {intervention.step}: {intervention.remedy} switched on, {detail}")
    if not monitor.interventions:
        console.print(f"  likely cause: {alert.cause}\n  advice: {alert.advice}")


def _quiet() -> None:
    """Leave the screen to the demo: it tells alerts and interventions itself."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "grad_callbacks"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
