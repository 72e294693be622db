"""AutoClip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from experiments.scoreboard.repair.published.base import Clipping, total_norm


class AutoClip(Clipping):
    """Clips to a percentile of all norms so far, this one included. A NaN among them makes it NaN, as published.

    References:
        Seetharaman et al. 2020, "AutoClip: Adaptive Gradient Clipping for Source Separation Networks",
        arXiv 2007.14469: percentile 10.
    """

    def __init__(self, percentile: float = 10.0) -> None:
        self.percentile = percentile
        self._norms: defaultdict[int, list[float]] = defaultdict(list)

    def clip(self, parameters: Sequence[Tensor], module: LightningModule, index: int) -> None:
        """Clip."""
        norms = self._norms[index]
        norms.append(total_norm(parameters))
        with np.errstate(invalid="ignore"):
            limit = float(np.percentile(norms, self.percentile))
        torch.nn.utils.clip_grad_norm_(parameters, limit)
