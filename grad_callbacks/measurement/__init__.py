"""Measuring: what the gradients of an optimizer look like at one step."""

from grad_callbacks.measurement.batch import Batch
from grad_callbacks.measurement.device_transfer import DeviceTransfer, arrives_later
from grad_callbacks.measurement.gauge import Gauge
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.measure import Measurement, measure
from grad_callbacks.measurement.pending_reading import About, PendingReading
from grad_callbacks.measurement.quiet_block import QuietBlock
from grad_callbacks.measurement.reading import Reading
from grad_callbacks.measurement.sharding import is_alone, replicas_of
from grad_callbacks.measurement.update_ratio import StepPlan, UpdateRatios

__all__ = [
    "About",
    "Batch",
    "DeviceTransfer",
    "Gauge",
    "Layers",
    "Measurement",
    "PendingReading",
    "QuietBlock",
    "Reading",
    "StepPlan",
    "UpdateRatios",
    "arrives_later",
    "is_alone",
    "measure",
    "replicas_of",
]
