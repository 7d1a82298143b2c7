"""Writes the predictions of `predict` as JSON lines."""

import json
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from peft_lightning.runs.directory import RunDirectory, write_text


class PredictionWriter(Callback):
    """Writes `predictions.jsonl`, one line an example in the order of the data: index and what the task decodes.

    Args:
        run: Where to write.
    """

    def __init__(self, run: RunDirectory):
        super().__init__()
        self.run = run
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects one batch."""
        loader: Any = trainer.predict_dataloaders
        indices = loader.batch_sampler.batches[batch_idx]
        self.rows += zip(indices, outputs, strict=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the rows of all devices together and writes them."""
        rows = self.rows
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        if trainer.is_global_zero:
            lines = [json.dumps({"index": index, **row}) for index, row in sorted(rows, key=lambda row: row[0])]
            write_text(self.run.predictions, "\n".join(lines) + "\n")
