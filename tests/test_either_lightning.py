"""One of Lightning's two packages is enough: what is installed under the other name is hidden here."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each name, what belongs to the other one, and where its Trainer and its loggers are.
NAMES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
HIDDEN = {"lightning": ("pytorch_lightning", "lightning_fabric"), "pytorch_lightning": ("lightning",)}
MODULE = """
import logging
import torch, {pl} as pl
from {pl}.demos.boring_classes import BoringModel
class Module(BoringModel):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)
quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
"""


@pytest.fixture(scope="module", params=sorted(NAMES))
def only(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name that is there, and a folder of all installed packages but those of the other one."""
    pytest.importorskip(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        name = entry.name.removesuffix(".py").partition("-")[0]
        if name not in HIDDEN[request.param] and "grad_callbacks" not in name:
            (folder / entry.name).symlink_to(entry)
    return request.param, folder


def run(only: tuple[str, Path], code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code, after that of the module above, in a fresh process."""
    name, packages = only
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{packages}", "PATH": os.environ["PATH"], "HOME": str(folder)}
    environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    text = (MODULE + code).replace("{pl}", NAMES[name])
    command = [sys.executable, "-S", "-c", text, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def test_a_guard_works_and_its_lines_stay_quiet_if_asked(only: tuple[str, Path], tmp_path: Path) -> None:
    code = """
from importlib.util import find_spec
from grad_callbacks import GradientGuard
logging.getLogger("{pl}").setLevel(logging.ERROR)
guard = GradientGuard()
trainer = pl.Trainer(max_steps=5, accelerator="cpu", callbacks=[guard], logger=False, **quiet)
trainer.fit(Module())
print(find_spec("lightning") is None, find_spec("pytorch_lightning") is None, guard.verdict)
"""
    done = run(only, code, tmp_path)
    assert done.stdout.split() == [str(only[0] != "lightning"), str(only[0] == "lightning"), "healthy"]
    assert "GPU available" not in done.stderr
    assert "GradientGuard: healthy" in done.stderr


@pytest.mark.slow
def test_its_run_reaches_mlflow_through_the_journal(only: tuple[str, Path], tmp_path: Path) -> None:
    code = """
from grad_callbacks import GradientGuard
from grad_callbacks.tracking import JournaledMLFlowLogger, default_store, prepare_store
client = prepare_store(default_store())
logger = JournaledMLFlowLogger("alone")
pl.Trainer(max_steps=5, accelerator="cpu", callbacks=[GradientGuard()], logger=logger, **quiet).fit(Module())
logger.close()
print(client.get_run(logger.run_id).data.tags["grad.verdict"])
"""
    assert run(only, code, tmp_path).stdout.split()[-1] == "healthy"


@pytest.mark.slow
def test_its_command_line_takes_the_callback(only: tuple[str, Path], tmp_path: Path) -> None:
    code = """
from {pl}.cli import LightningCLI
from grad_callbacks import GradientGuard
defaults = {"logger": False, "accelerator": "cpu", "max_steps": 5, **quiet}
cli = LightningCLI(Module, trainer_defaults=defaults, save_config_callback=None)
[guard] = [callback for callback in cli.trainer.callbacks if isinstance(callback, GradientGuard)]
print(guard.verdict)
"""
    arguments = ("fit", "--trainer.callbacks+=grad_callbacks.GradientGuard", "--trainer.callbacks.prescription=gentle")
    assert run(only, code, tmp_path, *arguments).stdout.split()[-1] == "healthy"


@pytest.mark.slow
def test_the_demo_runs(only: tuple[str, Path], tmp_path: Path) -> None:
    code = "import grad_callbacks.demo as demo; demo.EPOCHS = 1; raise SystemExit(demo.main())"
    assert "6 runs in" in run(only, code, tmp_path).stdout


def test_with_both_a_level_set_on_the_one_that_is_used_counts(tmp_path: Path) -> None:
    for name, package in NAMES.items():
        pytest.importorskip(name)
        code = f"""
import {package}
from grad_callbacks import GradientGuard
import lightning_utilities.core.rank_zero as utilities
print(utilities.log.name.startswith({package!r}))
"""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True"], package
