"""Callbacks and loggers of a run."""

from peft_lightning.callbacks.checkpoints import checkpoint_callbacks
from peft_lightning.callbacks.exact_resume import ExactResume
from peft_lightning.callbacks.metrics_file import MetricsFile
from peft_lightning.callbacks.prediction_writer import PredictionWriter
from peft_lightning.callbacks.run_recorder import RunRecorder

__all__ = ["ExactResume", "MetricsFile", "PredictionWriter", "RunRecorder", "checkpoint_callbacks"]
