"""Runs the smoke tests with every Python that is here: ``make matrix``. Needs the standard library alone.

Each row is an interpreter and the versions that go with it, in a virtual environment of its own under ``build/matrix``,
which a second call uses again. What is not here, or cannot be installed, is named as not run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "matrix"
INSTALLED = (".[mlflow,plots,hydra]", "lightning", "pytest>=8", "pytest-xdist>=3.6", "scikit-learn")
SHOWN = ("torch", "pytorch-lightning", "mlflow", "pandas", "numpy")
MINUTES = 60  # for the installation of a row, and for its tests: a CUDA build of torch is several GB
SMOKE = (
    "tests/test_imports.py",
    "tests/test_either_lightning.py",
    "tests/test_hydra_configs.py",
    "tests/callbacks/test_guard.py",
    "tests/callbacks/test_console.py",
    "tests/callbacks/test_notebook.py",
    "tests/callbacks/test_resume.py",
    "tests/engine/test_engine.py",
    "tests/lint",
    "tests/tracking/test_logger.py",
    "tests/tracking/run_page/test_run_report.py",
)
# The oldest that pyproject.toml takes, with the oldest Python that has them all.
OLDEST = (
    *("torch==2.4.*", "pytorch-lightning==2.5.*", "lightning==2.5.*", "mlflow==3.10.*"),
    *("pandas==2.2.*", "numpy==1.26.*", "pyarrow==15.*"),
)


@dataclass(frozen=True)
class Row:
    """One combination.

    Attributes:
        name: Of the row.
        python: The interpreter's version.
        pins: Versions, as pip takes them; without any the newest that fit.
        constraints: A file with more of them.
    """

    name: str
    python: str
    pins: tuple[str, ...] = ()
    constraints: str = ""


ROWS = (
    Row("oldest", "3.10", OLDEST),
    Row("pinned", "3.11", constraints="constraints.txt"),
    Row("newest-3.12", "3.12"),
    Row("newest-3.13", "3.13"),
    Row("newest-3.14", "3.14"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows and return 1 if the tests of one have failed, or if none was run."""
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[row.name for row in ROWS], metavar="ROW", help="rows to run")
    parser.add_argument("--list", action="store_true", help="say which rows could be run, and run none")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.only) - {row.name for row in ROWS}):
        parser.error(f"there is no row {unknown[0]!r}; there are: {', '.join(row.name for row in ROWS)}")
    results = []
    for row in ROWS:
        interpreter = find(row.python)
        if interpreter is None:
            results.append((row, "not run: this Python is not here"))
        elif options.list or row.name not in options.only:
            results.append((row, "not run" if row.name not in options.only else f"can be run: {interpreter}"))
        else:
            sys.stdout.write(f"--- {row.name}: Python {row.python}\n")
            sys.stdout.flush()
            results.append((row, run(row, interpreter)))
    sys.stdout.write("\n" + "\n".join(f"{row.name:12} Python {row.python}  {told}" for row, told in results) + "\n")
    told = [each for _, each in results]
    has_failed = any(each.startswith("failed") for each in told)
    return int(has_failed or not (options.list or any(each.startswith("passed") for each in told)))


def find(version: str) -> str | None:
    """Return the interpreter of a version, if it is here: on the path, also as one of pyenv's."""
    command = shutil.which(f"python{version}")
    if command is None:
        return None
    environment = dict(os.environ)
    if pyenv := shutil.which("pyenv"):  # its commands answer only for versions that are named
        listed = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=False).stdout
        environment["PYENV_VERSION"] = ":".join(listed.split())
    code = "import sys; print(sys.executable)"
    done = subprocess.run([command, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def run(row: Row, interpreter: str) -> str:
    """Install a row and run the smoke tests; return what came of it."""
    home = FOLDER / row.name
    python = home / "bin" / "python"
    wanted = "\n".join([*INSTALLED, *row.pins, (ROOT / "pyproject.toml").read_text()])
    stamp = home / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        limits = ["-c", str(ROOT / row.constraints)] if row.constraints else []
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *limits]
        for command in ([interpreter, "-m", "venv", str(home)], [*install, *row.pins, *INSTALLED]):
            failed = _failure(command)
            if failed:
                return f"not run: it could not be installed ({failed})"
        stamp.write_text(wanted)
    failed = _failure([str(python), "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *SMOKE])
    return f"failed ({_versions(python)}): {failed}" if failed else f"passed ({_versions(python)})"


def _failure(command: Sequence[str]) -> str:
    """Run a command; return the last line of what it said if it has failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        return f"not done within {MINUTES} minutes"
    if done.returncode == 0:
        return ""
    sys.stdout.write(f"{done.stdout}{done.stderr}\n")
    said = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    errors = [line for line in said if line.startswith(("ERROR", "FAILED"))]
    return (errors or said or ["no word"])[-1].strip()


def _versions(python: Path) -> str:
    code = f"from importlib.metadata import version\nprint(', '.join(f'{{n}} {{version(n)}}' for n in {SHOWN!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
