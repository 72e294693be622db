"""A transformer that reads and writes with the same table."""

from __future__ import annotations

from typing import Any

from torch import nn

from experiments.models.transformer import Transformer


class TiedTransformer(Transformer):
    """A transformer whose head is its table of tokens (Press & Wolf 2017).

    Args:
        arguments: As for :class:`Transformer`; ``in_features`` must equal ``out_features``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # Of unit variance, as torch draws them, the tokens would give logits of the size of the width's root.
        nn.init.normal_(self.tokens.weight, std=0.1)
        self.head.weight = self.tokens.weight
