"""Writes the predictions of `predict` as JSON lines."""

import json
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from peft_lightning.runs.directory import RunDirectory, write_text


class PredictionWriter(Callback):
    """Writes `predictions.jsonl`, one line an example in the order of the file.

    A line has `row`, its number in the published table, the text, `true`, the label there, and what the task decodes:
    for classification `label` and `scores`.

    Args:
        run: Where to write.
    """

    def __init__(self, run: RunDirectory):
        super().__init__()
        self.run = run
        self.decoded: list[tuple[int, dict[str, Any]]] = []

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
        self.decoded += zip(loader.batch_sampler.batches[batch_idx], outputs, strict=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the predictions of all devices together and writes them."""
        decoded = self.decoded
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, decoded)
            decoded = [entry for part in gathered for entry in part]
        if trainer.is_global_zero:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            table = datamodule.table("test")
            names = table.features["label"].names
            lines = []
            for index, prediction in sorted(decoded, key=lambda entry: entry[0]):
                example = table[index]
                true = names[example.pop("label")]
                lines.append(json.dumps({**example, "true": true, **prediction}, ensure_ascii=False))
            write_text(self.run.predictions, "\n".join(lines) + "\n")
