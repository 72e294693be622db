"""Only torch, Lightning and NumPy are needed; what needs more says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Their folders and, with a hyphen and a version, their metadata.
OPTIONAL = {
    *("mlflow", "mlflow_skinny", "mlflow_tracing", "pandas", "pyarrow", "matplotlib", "pillow", "PIL", "rich"),
    *("scikit_learn", "sklearn", "hydra", "hydra_core", "hydra_plugins", "omegaconf", "apprise", "psutil", "ipython"),
    "IPython",
}
# At the rate of .1 that it comes with, BoringModel diverges.
TRAINED = """
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from grad_callbacks import GradientGuard
class Model(BoringModel):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
guard = GradientGuard()
quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
Trainer(max_steps=5, accelerator="cpu", callbacks=[guard], **quiet).fit(Model())
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what is installed here, without the optional packages."""
    folder = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name.partition("-")[0] not in OPTIONAL:
            (folder / entry.name).symlink_to(entry)
    return folder


def run(code: str, packages: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process with these packages alone."""
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{packages}", "PATH": "", "HOME": str(folder)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_a_guard_trains_shows_itself_and_saves_without_any_of_them(packages: Path, tmp_path: Path) -> None:
    code = TRAINED + "print(repr(guard)); print(guard._repr_html_()[:4]); print(sorted(guard.state_dict()))"
    done = run(code, packages, tmp_path)
    assert done.returncode == 0, done.stderr
    said, html, state = done.stdout.splitlines()
    assert said.startswith("<GradientGuard: healthy: no alert in 5 readings of 1 layer")
    assert html == "<div"
    assert "record" in state
    assert "GradientGuard: healthy" in done.stderr, "the summary"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("guard.history()", "a table of the history needs pandas, {}[plots]'"),
        ("guard.report()", "a table of the history needs pandas, {}[plots]'"),
        ("guard.plot()", "GradientGuard.plot() needs pandas, {}[plots]'"),
        (
            "from grad_callbacks.tracking import JournaledMLFlowLogger; JournaledMLFlowLogger()",
            "JournaledMLFlowLogger needs mlflow, {}[mlflow]'",
        ),
        (
            "from grad_callbacks.tracking import comparison_table",
            "grad_callbacks.tracking.comparison_table needs rich, {}[mlflow]'",
        ),
    ],
)
def test_what_is_missing_is_told_with_what_to_install(code: str, told: str, packages: Path, tmp_path: Path) -> None:
    done = run((TRAINED if "guard" in code.split(".")[0] and "import" not in code else "") + code, packages, tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ModuleNotFoundError: " + told.format("which is not installed: pip install 'grad-callbacks")


@pytest.mark.parametrize("command", ["ui", "sync", "compare"])
def test_the_command_says_it_in_one_line(command: str, packages: Path, tmp_path: Path) -> None:
    code = f"import sys; from grad_callbacks.tracking.cli import main; sys.exit(main([{command!r}]))"
    done = run(code, packages, tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"grad-callbacks {command}: this command needs mlflow, which is not installed: "
        "pip install 'grad-callbacks[mlflow]'\n"
    )


@pytest.mark.slow
def test_the_demo_runs_in_the_console_alone(packages: Path, tmp_path: Path) -> None:
    code = "import sys; import grad_callbacks.demo as demo; demo.EPOCHS = 1; sys.exit(demo.main())"
    done = run(code, packages, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 networks on made clusters" in done.stdout
    assert "pip install 'grad-callbacks[mlflow]'" in done.stdout
    assert not list(tmp_path.iterdir()), "nothing is left behind"
