"""Run directories and what can be done with them."""

from peft_lightning.runs.comparison import comparison_table
from peft_lightning.runs.directory import RunDirectory, default_run_directory
from peft_lightning.runs.glue_submission import write_submission
from peft_lightning.runs.loading import load_run
from peft_lightning.runs.predict_file import predict_file
from peft_lightning.runs.summary import print_summary

__all__ = [
    "RunDirectory",
    "comparison_table",
    "default_run_directory",
    "load_run",
    "predict_file",
    "print_summary",
    "write_submission",
]
