"""Callbacks and loggers of a run."""

from peft_lightning.callbacks.adapter_activity import AdapterActivity
from peft_lightning.callbacks.checkpoint_files import CheckpointFiles
from peft_lightning.callbacks.checkpoints import checkpoint_callbacks
from peft_lightning.callbacks.exact_resume import ExactResume
from peft_lightning.callbacks.frozen_check import FrozenCheck
from peft_lightning.callbacks.init_scale import InitScale
from peft_lightning.callbacks.layer_removal import LayerRemoval
from peft_lightning.callbacks.metrics_file import MetricsFile
from peft_lightning.callbacks.nonfinite_guard import NonFiniteGuard
from peft_lightning.callbacks.prediction_writer import PredictionWriter
from peft_lightning.callbacks.run_recorder import RunRecorder
from peft_lightning.callbacks.stop_on_signal import StopOnSignal, StoppedBySignal, tell
from peft_lightning.callbacks.time_limit import TimeLimit, TimeLimitReached

__all__ = [
    "AdapterActivity",
    "CheckpointFiles",
    "ExactResume",
    "FrozenCheck",
    "InitScale",
    "LayerRemoval",
    "MetricsFile",
    "NonFiniteGuard",
    "PredictionWriter",
    "RunRecorder",
    "StopOnSignal",
    "StoppedBySignal",
    "TimeLimit",
    "TimeLimitReached",
    "checkpoint_callbacks",
    "tell",
]
