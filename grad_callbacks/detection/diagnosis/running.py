"""What is running while a batch is run again: modules, and the line of the user's code."""

from __future__ import annotations

import re
import sys
import sysconfig
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks.measurement.layer_order import clean_name

_INSTALLED = (str(Path(torch.__file__).parent), sysconfig.get_path("stdlib"), "<")
_OURS = Path(str(files("grad_callbacks")))


class RunningModules:
    """Keeps the names of the modules that are running, by hooks that last as long as the ``with``.

    Args:
        model: It and its modules are followed.
        stack: Takes the names, the innermost last.
    """

    def __init__(self, model: nn.Module, stack: list[str]) -> None:
        self._model, self._stack = model, stack
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> None:
        for name, module in self._model.named_modules():
            if module is not self._model:
                self._handles.append(module.register_forward_pre_hook(partial(self._enter, clean_name(name))))
                self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, name: str, module: nn.Module, inputs: object) -> None:
        self._stack.append(name)

    def _leave(self, module: nn.Module, inputs: object, output: object) -> None:
        if self._stack:
            self._stack.pop()


def user_line() -> str:
    """Return the innermost place in the user's code, ``"file.py:12"``: in no installed package; "" without one."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def user_line_of(node: torch.autograd.graph.Node) -> str:
    """Return the place whose operation made a node of the graph; "" without anomaly mode when it was made."""
    for entry in reversed(node.metadata.get("traceback_", [])):  # type: ignore[attr-defined]  # a property
        found = re.match(r'\s*File "(.*)", line (\d+)', entry)
        if found and _is_users(found[1]):
            return f"{Path(found[1]).name}:{found[2]}"
    return ""


def _is_users(file: str) -> bool:
    is_installed = file.startswith(_INSTALLED) or "site-packages" in file or "dist-packages" in file
    return not is_installed and _OURS not in Path(file).parents
