"""Callbacks and loggers of a run."""

from peft_lightning.callbacks.checkpoints import checkpoint_callbacks
from peft_lightning.callbacks.layer_removal import LayerRemoval
from peft_lightning.callbacks.metrics_file import MetricsFile
from peft_lightning.callbacks.nonfinite_guard import NonFiniteGuard
from peft_lightning.callbacks.prediction_writer import PredictionWriter
from peft_lightning.callbacks.run_recorder import RunRecorder
from peft_lightning.callbacks.stop_on_signal import StopOnSignal, StoppedBySignal, tell

__all__ = [
    "LayerRemoval",
    "MetricsFile",
    "NonFiniteGuard",
    "PredictionWriter",
    "RunRecorder",
    "StopOnSignal",
    "StoppedBySignal",
    "checkpoint_callbacks",
    "tell",
]
