"""Measuring: what the gradients of an optimizer look like at one step."""

from grad_callbacks.gradients.gauge import Gauge
from grad_callbacks.gradients.history import History
from grad_callbacks.gradients.incoming import About, Incoming
from grad_callbacks.gradients.layers import Layers
from grad_callbacks.gradients.measurement import Measurement, measure
from grad_callbacks.gradients.motion import Motion, StepPlan
from grad_callbacks.gradients.reading import Reading
from grad_callbacks.gradients.sharding import is_alone, replicas_of
from grad_callbacks.gradients.transfer import Transfer, arrives_later

__all__ = [
    "About",
    "Gauge",
    "History",
    "Incoming",
    "Layers",
    "Measurement",
    "Motion",
    "Reading",
    "StepPlan",
    "Transfer",
    "arrives_later",
    "is_alone",
    "measure",
    "replicas_of",
]
