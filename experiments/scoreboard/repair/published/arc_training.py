"""arc-training, which is run as it is installed: `pip install arc-training`."""

from __future__ import annotations

from importlib.util import find_spec

from lightning.pytorch import Callback


def is_installed() -> bool:
    """True if it can be run."""
    return find_spec("arc") is not None and find_spec("arc.api") is not None


def arc_training() -> Callback:
    """arc-training's own Lightning callback: back to a snapshot and half of the rate, and skipped steps; its defaults.

    Its licence is the AGPL. It is no dependency, and nothing of it is in this repository.
    """
    from arc.api.integrations import LightningCallback

    callback: Callback = LightningCallback(verbose=False)
    return callback
