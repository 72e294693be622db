"""``grad-callbacks doctor``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grad_callbacks.doctor.setup import Source


def add_command(commands: Any) -> None:
    """Add the command to a parser's commands.

    Args:
        commands: What ``add_subparsers`` has returned.
    """
    parser = commands.add_parser("doctor", help="find what is wrong with a training, and which change cures it")
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="import path of a LightningModule: my_package.MyModule"
    )
    parser.add_argument("--data", help="import path of a DataModule, or of a function that returns loaders")
    parser.add_argument("--config", metavar="FILE", help="take model and data from a configuration of LightningCLI")
    for option, what in (("--arg", "model"), ("--data-arg", "data")):
        parser.add_argument(
            option, action="append", default=[], metavar="NAME=VALUE", help=f"argument of the {what}; may be repeated"
        )
    add_options(parser)
    parser.set_defaults(run=_doctor)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that do not say what is trained."""
    parser.add_argument("--trials", type=int, default=8, help="cures that are tried at most (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=20.0, help="time for all (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="optimizer steps of one training (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds that the best cure is confirmed on")
    parser.add_argument("--workers", type=int, default=1, help="processes that train side by side")
    parser.add_argument("--folder", type=Path, help="where finished trials are kept; a second call goes on there")
    parser.add_argument("--tracking-uri", help="MLflow address (default: $MLFLOW_TRACKING_URI, or ./mlflow.db)")
    parser.add_argument("--no-log", action="store_true", help="do not log to MLflow")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _doctor(options: argparse.Namespace) -> int:
    from grad_callbacks.doctor.sources import ImportedSource, LightningCLISource

    if options.config is None:
        if options.model is None:
            raise ValueError("say what to train: MODEL, an import path, or --config FILE")
        given = [dict(_pair(text, option) for text in getattr(options, name)) for name, option in _PAIRS.items()]
        return run_doctor(ImportedSource(options.model, options.data, *given), options)
    if options.arg or options.data_arg:
        raise ValueError("--arg and --data-arg do not go with --config: the file has the arguments")
    if not Path(options.config).is_file():
        raise ValueError(f"there is no file {options.config}")
    return run_doctor(LightningCLISource(options.config, options.model, options.data), options)


def run_doctor(source: Source, options: argparse.Namespace) -> int:
    """Search, print the prescription and return the exit status: 0 if healthy or cured, 1 if not.

    Args:
        source: Makes the training.
        options: Of :func:`add_options`.
    """
    from grad_callbacks.doctor.prescription import prescription
    from grad_callbacks.doctor.recording import ParentRun
    from grad_callbacks.doctor.search import Budget, Doctor, plain_result
    from grad_callbacks.tracking.store import default_store

    _quiet()
    budget = Budget(options.trials, options.minutes, options.steps or 300, options.workers, options.seeds)
    folder = options.folder or Path(f"doctor-{source.name}")
    source.make(options.seed)  # a wrong path or argument leaves no run behind
    parent = None if options.no_log else ParentRun(options.tracking_uri or default_store(), source.name, folder)
    doctor = Doctor(source, budget, folder, options.seed, parent.place if parent else None, _say)
    ended = "failed"
    try:
        outcome = doctor.search()
        result = plain_result(outcome)
        text = prescription(outcome, str(parent.place) if parent else str(folder))
        if parent is not None:
            best = outcome.best.name if outcome.best else ""
            tags = {"doctor.cured": str(outcome.is_cured), "doctor.cure": best, "grad.verdict": outcome.ill.verdict}
            parent.record(text, result, {**tags, "grad.cause": outcome.ill.cause})
        ended = "success"
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C within a training into an exit
        ended = "killed"
        done = len(list(folder.glob("trial-*.json")))
        _say(f"stopped after {done} trainings; the same command with --folder {folder} goes on")
        return 130
    finally:
        if parent is not None:
            parent.end(ended)
    sys.stdout.write(json.dumps(result, indent=1, default=str) + "\n" if options.json else f"\n{text}\n")
    return 0 if outcome.is_cured or outcome.is_healthy else 1


_PAIRS = {"arg": "--arg", "data_arg": "--data-arg"}


def _pair(text: str, option: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{option} takes NAME=VALUE, got {text!r}")
    return name, yaml.safe_load(value)


def _say(line: str) -> None:
    """Show progress, beside the result on standard output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _quiet() -> None:
    """Leave the screen to the doctor's own lines."""
    warnings.filterwarnings("ignore")
    for name in ("lightning", "pytorch_lightning", "mlflow", "lightning_fabric"):
        for logger in (name, f"{name}.pytorch", f"{name}.fabric"):
            logging.getLogger(logger).setLevel(logging.ERROR)
    logging.getLogger("grad_callbacks").setLevel(logging.ERROR)
