"""What all benchmarks share: splits, checks, tokens, batches."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from peft_lightning.backbone import load_tokenizer
from peft_lightning.data.batches import EvaluationBatches, TrainingBatches
from peft_lightning.data.files import content_hash, stratified_split
from peft_lightning.data.rows import checked_rows, encoded_rows
from peft_lightning.errors import UserError

STAGE_SPLITS = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("test",),
}


class TextDataModule(LightningDataModule):
    """Texts, or pairs of texts, and their labels.

    A benchmark is a subclass that says where its tables are (`raw`), which columns they have and which labels.

    Args:
        source: Hub id, local directory or file.
        revision: Branch, tag or commit of the dataset on the Hub.
        backbone: Whose tokenizer to use; the command line takes it from the model.
        backbone_revision: Its revision; the command line takes it from the model.
        batch_size: Examples a batch on one device.
        max_length: Number of tokens after which a text is cut.
        num_workers: Processes that load batches beside the main one; 0 means none.
        split_seed: Seed of the split where the publisher gives none, and of `train_size`.
        train_size: Number of training examples to use, drawn with the proportions of the labels; by default all.
        seed: Seed of the order of the training examples; the command line takes it from `seed_everything`.

    Raises:
        UserError: A size is not positive.
    """

    text_columns: Mapping[str, str]
    label_column: str

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        backbone: str = "embedded:minilm-l6",
        backbone_revision: str | None = None,
        batch_size: int = 32,
        max_length: int = 128,
        num_workers: int = 0,
        split_seed: int = 0,
        train_size: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        for option, value, least in (
            ("batch_size", batch_size, 1),
            ("max_length", max_length, 3),
            ("num_workers", num_workers, 0),
            ("split_seed", split_seed, 0),
            ("train_size", train_size, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{option} is {value}; give at least {least}.")
        self.source = source
        self.revision = revision
        self.backbone = backbone
        self.backbone_revision = backbone_revision
        self.batch_size = batch_size
        self.max_length = max_length
        self.num_workers = num_workers
        self.split_seed = split_seed
        self.train_size = train_size
        self.seed = seed
        self._checked: dict[str, Dataset] = {}
        self._encoded: dict[str, Dataset] = {}

    # What a benchmark says of itself

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The tables as published, by split."""
        raise NotImplementedError(f"{type(self).__name__} has to say where its tables are: raw")

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the order of their numbers."""
        raise NotImplementedError(f"{type(self).__name__} has to name its labels: labels")

    @property
    def label_values(self) -> dict[str, int]:
        """What the label column may hold, as text -> number of the label."""
        return {name: number for number, name in enumerate(self.labels)}

    @property
    def split_off(self) -> dict[str, float | int]:
        """Splits that the publisher does not give -> the fraction, or number, of training rows to take for them."""
        return {}

    @property
    def task_description(self) -> dict[str, Any]:
        """The task that this benchmark poses, as a plain dict."""
        return {
            "type": "classification",
            "labels": self.labels,
            "max_length": self.max_length,
            "monitor": "accuracy",
            "mode": "max",
        }

    # Splits

    def table(self, split: str) -> Dataset:
        """The checked rows of one split.

        Raises:
            UserError: There is no such split, or a row is wrong.
        """
        if split not in self._checked:
            taken = {} if "train" not in self.raw else self.split_off
            if split in self.raw and not (split == "train" and taken):
                self._checked[split] = self._check(split)
            elif split == "train" or split in taken:
                where = f"{self.source} (train)"
                self._checked |= stratified_split(self._check("train"), taken, self.split_seed, where)
            if split == "train" and self.train_size is not None:
                self._checked["train"] = self._drawn(self._checked["train"], self.train_size)
            if split not in self._checked:
                raise UserError(
                    f"Data '{self.source}' has no {split} split; it has {', '.join([*self.raw, *taken])}. "
                    "Add the split, or use a verb that does not need it."
                )
        return self._checked[split]

    def encoded(self, split: str) -> Dataset:
        """The tokens of one split."""
        if split not in self._encoded:
            where = f"{self.source} ({split})"
            self._encoded[split] = encoded_rows(self.table(split), self.tokenizer, self.max_length, where)
        return self._encoded[split]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        return load_tokenizer(self.backbone, self.backbone_revision)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of the splits that were loaded."""
        return {split: len(table) for split, table in self._encoded.items()}

    def contents(self) -> dict[str, str]:
        """Content hashes of the published tables that the loaded splits come from, by which changed data is told."""
        taken_from_train = set(self._encoded) & set(self.split_off if "train" in self.raw else ())
        tables = {"train" if split in taken_from_train else split for split in self._encoded}
        return {split: content_hash(self.raw[split]) for split in sorted(tables)}

    def prepare_data(self) -> None:
        """On one process a node: downloads, checks and tokenises into the cache."""
        for split in STAGE_SPLITS[self._stage]:
            self.encoded(split)

    def setup(self, stage: str) -> None:
        """On every process: finds the result in the cache."""
        for split in STAGE_SPLITS[stage]:
            self.encoded(split)

    # Batches

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of similar lengths."""
        rows = self.encoded("train")
        return self._loader(rows, TrainingBatches(_lengths(rows), self.batch_size, self.seed, *self._place))

    def val_dataloader(self) -> DataLoader:
        """Every validation example once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader:
        """Every test example once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Every test example once, in the order of the file."""
        return self._evaluation_loader("test", by_length=False)

    def _check(self, split: str) -> Dataset:
        where = f"{self.source} ({split})"
        return checked_rows(
            self.raw[split], where, self.text_columns, self.label_column, self.labels, self.label_values
        )

    def _drawn(self, table: Dataset, size: int) -> Dataset:
        if size > len(table):
            raise UserError(
                f"train_size is {size}, and '{self.source}' has {len(table)} training examples; give fewer."
            )
        if size == len(table):
            return table
        return stratified_split(table, {"drawn": size}, self.split_seed, f"{self.source} (train)")["drawn"]

    def _evaluation_loader(self, split: str, by_length: bool = True) -> DataLoader:
        rows = self.encoded(split)
        return self._loader(rows, EvaluationBatches(_lengths(rows), self.batch_size, *self._place, by_length=by_length))

    def _loader(self, rows: Dataset, batches: Sampler) -> DataLoader:
        return DataLoader(
            rows.remove_columns("length"),
            batch_sampler=batches,
            collate_fn=DataCollatorWithPadding(self.tokenizer),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Without a generator of its own each new iterator would draw from the stream that dropout uses.
            generator=torch.Generator(),
        )

    @property
    def _place(self) -> tuple[int, int]:
        """Rank and number of devices."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _stage(self) -> str:
        return str(self.trainer.state.fn.value) if self.trainer and self.trainer.state.fn else "fit"


def _lengths(rows: Dataset) -> Any:
    return rows.with_format("numpy")["length"][:]
