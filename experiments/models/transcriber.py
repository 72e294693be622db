"""A net that reads frames and writes a label, or nothing, for some of them."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.models.checks import whole_numbers


class Transcriber(nn.Module):
    """A bidirectional GRU over the frames, with a linear head on each state.

    Args:
        in_features: Features of a frame.
        out_features: Number of labels; the last output is the blank.
        hidden: Units of either direction.
        stride: So many frames that follow each other are read as one: the output is so many times shorter.
    """

    def __init__(self, in_features: int, out_features: int, hidden: int = 48, stride: int = 1) -> None:
        super().__init__()
        whole_numbers(hidden=hidden, stride=stride)
        self.stride = stride
        self.cell = nn.GRU(stride * in_features, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, out_features + 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames ``(batch, time, in_features)`` to logits ``(batch, time / stride, out_features + 1)``."""
        batch, time, features = frames.shape
        kept = time // self.stride * self.stride
        states, _ = self.cell(frames[:, :kept].reshape(batch, time // self.stride, self.stride * features))
        logits: Tensor = self.head(states)
        return logits
