"""Callbacks and loggers of a run."""

from peft_lightning.callbacks.checkpoint_files import CheckpointFiles
from peft_lightning.callbacks.checkpoints import checkpoint_callbacks
from peft_lightning.callbacks.metrics_file import MetricsFile
from peft_lightning.callbacks.prediction_writer import PredictionWriter
from peft_lightning.callbacks.run_recorder import RunRecorder

__all__ = ["CheckpointFiles", "MetricsFile", "PredictionWriter", "RunRecorder", "checkpoint_callbacks"]
