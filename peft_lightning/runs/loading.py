"""From a run directory back to the trained method."""

from pathlib import Path
from typing import Any

from peft_lightning.methods import AdaptationMethod, load_checkpoint
from peft_lightning.runs.directory import RunDirectory


def load_run(path: str | Path, **options: Any) -> AdaptationMethod:
    """The trained method of a run, from its best checkpoint, in evaluation mode.

    Args:
        path: The run directory.
        options: Override what the run says, for example `backbone="/data/roberta-base"`.

    Raises:
        UserError: The directory holds no run, or no trained model.
    """
    return load_checkpoint(RunDirectory.existing(path).trained_checkpoint(), **options)
