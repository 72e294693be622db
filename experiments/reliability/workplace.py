"""Where faults are tried: a folder with stores, a server, prepared journals and child processes, made when needed."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from functools import cached_property
from pathlib import Path

from experiments.reliability.children import Children
from experiments.reliability.prepared import Prepared, prepare
from experiments.reliability.proxy import Proxy
from experiments.reliability.stores import Server, Store


class Workplace:
    """All that cases share; nothing of it survives :meth:`close`.

    Args:
        old_python: An interpreter whose MLflow is the oldest that the package supports; None if there is none.

    Attributes:
        folder: A temporary folder.
    """

    def __init__(self, old_python: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="reliability-"))
        self.old_python = old_python
        self._count = itertools.count()

    @cached_property
    def template(self) -> Path:
        """An empty store: making its tables takes seconds, copying it does not."""
        from grad_callbacks.tracking import prepare_store

        path = self.folder / "template.db"
        prepare_store(f"sqlite:///{path}")
        return path

    @cached_property
    def store(self) -> Store:
        """An SQLite store that all cases share, one after the other."""
        return Store(self.folder / "store", self.template)

    @cached_property
    def server(self) -> Server:
        """A real server that all cases share, one after the other."""
        server = Server(self.folder / "server", self.template)
        server.start()
        return server

    @cached_property
    def old_server(self) -> Server:
        """A server of the oldest supported version."""
        assert self.old_python is not None
        server = Server(self.folder / "old-server", None, self.old_python)
        server.start()
        return server

    @cached_property
    def proxy(self) -> Proxy:
        """A proxy in front of :attr:`server`."""
        return Proxy(self.server.port)

    @cached_property
    def prepared(self) -> Prepared:
        """A journal of a run that has ended."""
        return prepare(self.folder / "prepared")

    @cached_property
    def children(self) -> Children:
        """Starts processes."""
        return Children()

    def new_folder(self) -> Path:
        """Return the path of a folder that does not exist yet."""
        return self.folder / f"case-{next(self._count)}"

    def close(self) -> None:
        """Stop the servers and remove the folder."""
        for name in ("server", "old_server"):
            if name in self.__dict__:
                self.__dict__[name].stop()
        if "proxy" in self.__dict__:
            self.proxy.close()
        shutil.rmtree(self.folder, ignore_errors=True)
