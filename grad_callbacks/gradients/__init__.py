"""Measuring: what the gradients of an optimizer look like at one step."""

from grad_callbacks.gradients.history import History
from grad_callbacks.gradients.layers import ForwardOrder, Layers
from grad_callbacks.gradients.motion import Motion
from grad_callbacks.gradients.reading import Reading, measure

__all__ = ["ForwardOrder", "History", "Layers", "Motion", "Reading", "measure"]
