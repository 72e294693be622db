"""What an import loads, in a fresh process: the core neither Lightning nor a tracker, tables or plots."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "mlflow",
    "pandas",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "hydra",
    "omegaconf",
    "apprise",
    "PIL",
    "rich",
    "wandb",
)
LIGHTNING = ("lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics")


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules in a fresh process after a statement."""
    code = f"{statement}; import sys; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return set(done.stdout.split())


def test_the_package_alone_loads_not_even_torch() -> None:
    assert not loaded_by("import grad_callbacks") & {"torch", "numpy", *HEAVY, *LIGHTNING}


@pytest.mark.parametrize("names", ["Engine", "Alert, ClipNorm, Exploding, Prescription, Record, Rollback, Trial"])
def test_the_core_loads_torch_and_nothing_else_that_is_heavy(names: str) -> None:
    allowed = loaded_by("import torch")
    assert sorted(loaded_by(f"from grad_callbacks import {names}") & {*HEAVY, *LIGHTNING} - allowed) == []


def test_the_callbacks_load_lightning_and_nothing_else_that_is_heavy() -> None:
    # Lightning itself loads some of these, such as matplotlib by torchmetrics; pytorch_lightning is its other name.
    allowed = loaded_by("import lightning.pytorch\ntry:\n import pytorch_lightning\nexcept Exception: pass\nimport sys")
    assert sorted(loaded_by("from grad_callbacks import GradientGuard") & {*HEAVY} - allowed) == []


def test_notify_loads_apprise_only_when_it_is_made() -> None:
    assert "apprise" not in loaded_by("import grad_callbacks.notify")
