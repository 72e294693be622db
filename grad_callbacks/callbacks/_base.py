"""The Callback class: of Lightning under both of its names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grad_callbacks._utils.lightning import PACKAGE, Callback, lines_kept_where_they_go

if not TYPE_CHECKING and PACKAGE == "lightning.pytorch":
    # `pytorch_lightning` is the same code as `lightning.pytorch`, yet its classes are others: its Trainer and its
    # command line take a callback only if it is one of its own.
    try:
        with lines_kept_where_they_go():
            from pytorch_lightning import Callback as _Other
    except Exception:  # not there, or of a release that does not go with this torch
        pass
    else:
        _Lightning = Callback

        class Callback(_Lightning, _Other):
            """A callback for either Trainer."""


__all__ = ["Callback"]
