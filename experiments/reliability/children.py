"""Processes that start quickly, say what they say to a pipe, and can be killed or limited."""

from __future__ import annotations

import multiprocessing
import os
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = ["torch", "lightning.pytorch", "mlflow", "mlflow.store.tracking.sqlalchemy_store", __name__]
PRELOADED += [
    "experiments.reliability.training",
    "grad_callbacks.tracking.logger",
    "grad_callbacks.tracking.run_session",
]


class Children:
    """Forks from a process that has imported everything."""

    def __init__(self) -> None:
        # The first process imports before it is told this one's path, and must not find an installed package instead.
        os.environ["PYTHONPATH"] = str(ROOT)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def start(self, target: Callable[..., None], *arguments: Any, file_limit: int | None = None) -> Child:
        """Call a function of a module in a process of its own.

        Args:
            target: The function.
            arguments: Its arguments.
            file_limit: Bytes beyond which no file of the process can grow: a full disk. None for no limit.
        """
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run, args=(sender, file_limit, target, arguments), daemon=True)
        process.start()
        sender.close()
        return Child(process, receiver)


class Child:
    """A process that was started."""

    def __init__(self, process: Any, output: Connection) -> None:
        self._process, self._said = process, bytearray()
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        """What it has written to its standard output and standard error so far."""
        return self._said.decode(errors="replace")

    @property
    def is_alive(self) -> bool:
        """True until it has ended."""
        return bool(self._process.is_alive())

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end."""
        self._process.kill()
        self.wait(30)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, and return its exit status; None if it goes on."""
        self._process.join(seconds)
        if self._process.exitcode is not None:
            self._reader.join(5)
        return self._process.exitcode  # type: ignore[no-any-return]

    def _read(self, output: Connection) -> None:
        with suppress(OSError):
            while data := os.read(output.fileno(), 65536):
                self._said += data
        output.close()


def _run(output: Connection, file_limit: int | None, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    import grad_callbacks

    assert Path(grad_callbacks.__file__).is_relative_to(ROOT), f"another package: {grad_callbacks.__file__}"
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    target(*arguments)
