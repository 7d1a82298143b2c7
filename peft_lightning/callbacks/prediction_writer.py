"""Writes the predictions of `predict` as JSON lines."""

import json
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from peft_lightning.errors import UserError
from peft_lightning.runs.directory import RunDirectory, write_text


class PredictionWriter(Callback):
    """Writes `predictions.jsonl`, one line an example in the order of the file.

    A line has `row`, its number in the published table, the texts, `true`, the label there if there is one, and what
    the task decodes: for classification `label` and `scores`. Of benchmarks that are evaluated on several splits each
    has a file: `predictions_mismatched.jsonl`. A benchmark may ask for further files in formats of its own. Of how many
    rows each file should have `result.json` keeps `predicted`, as options of the trainer can end a prediction early.

    Args:
        run: Where to write.
    """

    def __init__(self, run: RunDirectory):
        super().__init__()
        self.run = run
        self.decoded: dict[int, list[tuple[int, dict[str, Any]]]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that no further file of the benchmark would be lost.

        Raises:
            UserError: One exists.
        """
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        names = datamodule.evaluated("predict")
        for file in (file for name in names for file in datamodule.prediction_files(name)):
            if (self.run.path / file).exists():
                raise UserError(f"{self.run.path / file} exists; move it away first.")

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
        loaders: Any = trainer.predict_dataloaders
        rows = zip(loaders[dataloader_idx].batch_sampler.batches[batch_idx].tolist(), outputs, strict=True)
        self.decoded.setdefault(dataloader_idx, []).extend(rows)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the predictions of all devices together and writes them."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        for number, (name, split) in enumerate(datamodule.evaluated("predict").items()):
            decoded = self.decoded.get(number, [])
            if trainer.world_size > 1:
                gathered: list[Any] = [None] * trainer.world_size
                torch.distributed.all_gather_object(gathered, decoded)
                decoded = [entry for part in gathered for entry in part]
            if trainer.is_global_zero:
                entries = [
                    {**datamodule.example(split, index), **prediction}
                    for index, prediction in sorted(decoded, key=lambda entry: entry[0])
                ]
                lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
                self._note(name, len(datamodule.table(split)))
                write_text(self.run.predictions_of(name), "\n".join(lines) + "\n")
                for file, content in datamodule.prediction_files(name).items():
                    write_text(self.run.path / file, content(entries))

    def _note(self, name: str, rows: int) -> None:
        predicted = self.run.read_result().get("predicted", {})
        self.run.update_result({"predicted": predicted | {self.run.predictions_of(name).name: rows}})
