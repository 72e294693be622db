"""Where a run comes from: the resolved config, the environment and the git commit."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from grad_callbacks.tracking.secrets.command import mask_command
from grad_callbacks.tracking.secrets.masking import mask

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKAGES = ("torch", "lightning", "pytorch-lightning", "mlflow", "numpy", "pandas", "hydra-core", "grad-callbacks")
CONFIG, ENVIRONMENT = "context/config.yaml", "context/environment.yaml"
GIT_TIMEOUT = 5  # seconds that a git command may take


def record_context(
    client: MlflowClient, run_id: str, trainer: Any, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Write ``context/config.yaml``, if there is a config, ``context/environment.yaml`` and the git commit.

    Args:
        client: Of the server that has the run.
        run_id: The run.
        trainer: A Lightning Trainer; LightningCLI leaves its config among the callbacks.
        known: The environment, if it was written already, together with the config of a Hydra job.

    Returns:
        The environment.
    """
    config = cli_config(trainer)
    if known:
        found = dict(known)
    else:
        found = record_environment(client, run_id)
        config = hydra_config() if config is None else config
    if config is not None:
        record_config(client, run_id, config)
    return found


def record_environment(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Write ``context/environment.yaml`` and the git commit, and return the environment."""
    from mlflow.entities import RunTag
    from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

    found = environment()
    client.log_text(run_id, yaml.safe_dump(found, sort_keys=False, allow_unicode=True), ENVIRONMENT)
    tags = {"grad.git_dirty": found["git, uncommitted changes"]} if "git, uncommitted changes" in found else {}
    if "git commit" in found:
        tags[MLFLOW_GIT_COMMIT] = found["git commit"]
    if tags:
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    return found


def record_config(client: MlflowClient, run_id: str, config: Mapping[str, Any]) -> None:
    """Write a resolved config as ``context/config.yaml``, its secrets masked."""
    client.log_text(run_id, yaml.safe_dump(mask(config), sort_keys=False, allow_unicode=True), CONFIG)


def environment() -> dict[str, str]:
    """Return versions, devices, the command and the state of the git repository around the script, secrets masked."""
    import torch

    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads",
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = str(torch.version.cuda)
    program, *arguments = sys.argv or [""]
    found["command"] = " ".join(mask_command([Path(program).name, *arguments]))
    for folder in (Path(program).resolve().parent, Path.cwd()):  # the script's repository, or that of a notebook
        if commit := _git("rev-parse", "HEAD", folder=folder):
            changed = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
            found |= {"git commit": commit, "git, uncommitted changes": "yes" if changed else "no"}
            break
    return found


def cli_config(trainer: Any) -> dict[str, Any] | None:
    """Return the resolved config of the LightningCLI that created this Trainer; None if none did."""
    for callback in trainer.callbacks:  # compared by name: in `pytorch_lightning` it is another class
        if any(cls.__name__ == "SaveConfigCallback" for cls in type(callback).__mro__):
            return _plain(yaml.safe_load(callback.parser.dump(callback.config, skip_none=False)))
    return None


def hydra_config() -> dict[str, Any] | None:
    """Return the resolved config of the Hydra job that this process runs; None outside of a job."""
    if "hydra" not in sys.modules:
        return None
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return None
    job = HydraConfig.get()
    saved = Path(job.runtime.output_dir) / (job.output_subdir or ".") / "config.yaml"
    if not saved.is_file():
        return None
    return _plain(OmegaConf.to_container(OmegaConf.load(saved), resolve=True))


def _plain(config: Any) -> dict[str, Any] | None:
    return config if isinstance(config, dict) else None


def _git(*arguments: str, folder: Path) -> str:
    git = shutil.which("git")
    if git is None or not folder.is_dir():
        return ""
    try:
        done = subprocess.run(
            [git, "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
