"""Lightning, under whichever of its two names is installed: ``lightning`` or ``pytorch_lightning``.

Where both are, ``lightning`` counts; the callbacks serve the Trainers of both (``callbacks/_base.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any


@contextmanager
def lines_kept_where_they_go() -> Iterator[None]:
    """Undo what importing the other package does to Lightning's own lines.

    Either package, when it is imported, sends the lines of both to its own logger, so that a level that the user has
    set on the other would no longer count.
    """
    utilities: Any = sys.modules.get("lightning_utilities.core.rank_zero")
    used = {"lightning.pytorch", "pytorch_lightning"} & set(sys.modules)
    log = getattr(utilities, "log", None) if used else None
    try:
        yield
    finally:
        if log is not None:
            utilities.log = log


if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.fabric.utilities.logger import _add_prefix as add_prefix
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
    from lightning.pytorch.loggers import Logger, MLFlowLogger
    from lightning.pytorch.loggers.logger import DummyLogger
    from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

    PACKAGE: str
else:
    with lines_kept_where_they_go():
        try:
            import lightning.pytorch  # noqa: F401

            PACKAGE = "lightning.pytorch"
        except ModuleNotFoundError as error:
            if error.name not in ("lightning", "lightning.pytorch"):
                raise
            PACKAGE = "pytorch_lightning"

        if PACKAGE == "lightning.pytorch":
            from lightning.fabric.loggers.logger import rank_zero_experiment
            from lightning.fabric.utilities.exceptions import MisconfigurationException
            from lightning.fabric.utilities.logger import _add_prefix as add_prefix
            from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
            from lightning.pytorch.loggers import Logger, MLFlowLogger
            from lightning.pytorch.loggers.logger import DummyLogger
            from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
        else:
            from lightning_fabric.loggers.logger import rank_zero_experiment
            from lightning_fabric.utilities.exceptions import MisconfigurationException
            from lightning_fabric.utilities.logger import _add_prefix as add_prefix
            from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
            from pytorch_lightning.loggers import Logger, MLFlowLogger
            from pytorch_lightning.loggers.logger import DummyLogger
            from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

__all__ = [
    "PACKAGE",
    "Callback",
    "DummyLogger",
    "LightningDataModule",
    "LightningModule",
    "Logger",
    "MLFlowLogger",
    "MisconfigurationException",
    "Trainer",
    "add_prefix",
    "lines_kept_where_they_go",
    "rank_zero_experiment",
    "rank_zero_only",
    "rank_zero_warn",
    "seed_everything",
]
