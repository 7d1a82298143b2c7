"""How Lightning's checkpoints get on the disk and back."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from peft_lightning.methods import read_checkpoint
from peft_lightning.storage import generations


class CheckpointFiles(CheckpointIO):
    """Saves every checkpoint whole or not at all, with a manifest, and keeps the one before it.

    Lightning's own writes it where TMPDIR is and moves it: from one file system to another that is copying over the
    earlier file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a new generation of the file.

        Raises:
            UserError: The disk is full or may not be written.
        """
        generations.save(Path(path), lambda file: torch.save(checkpoint, file), checkpoint["global_step"])

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """What was saved, on the CPU; whatever is asked for, nothing that the file says is executed.

        Raises:
            UserError: The file is not what was saved.
        """
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes the file, its manifest and the generation before."""
        generations.remove(Path(path))
