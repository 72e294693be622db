"""The Callback class: of Lightning under both of its names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if not TYPE_CHECKING:
    # `pytorch_lightning` is the same code as `lightning.pytorch`, yet its classes are others: its Trainer and its
    # command line take a callback only if it is one of its own.
    try:
        from pytorch_lightning import Callback as _Other
    except Exception:  # not there, or of a release that does not go with this torch
        pass
    else:
        _Lightning = Callback

        class Callback(_Lightning, _Other):
            """A callback for either Trainer."""


__all__ = ["Callback"]
