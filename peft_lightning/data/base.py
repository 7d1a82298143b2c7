"""What all benchmarks share: splits, checks, tokens, batches."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Sampler
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from peft_lightning.backbone import load_tokenizer
from peft_lightning.data.batches import EvaluationBatches, TrainingBatches
from peft_lightning.data.cache import cached_map
from peft_lightning.data.doubts import input_columns, labels_without_rows, rows_in_both
from peft_lightning.data.files import content_hash, source_files
from peft_lightning.data.lengths import of_texts
from peft_lightning.data.rows import check_ids
from peft_lightning.data.splits import split_rows
from peft_lightning.data.whole_numbers import whole_numbers
from peft_lightning.errors import UserError


class Benchmark(LightningDataModule):
    """A source of examples, checked row by row, and their tokens in batches.

    A benchmark is a subclass that says where its tables are (`raw`), what makes a row right (`check`), what the model
    is given (`encode`) and which task is posed (`task_description`). Most read texts and labels: `TextDataModule`.

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
    def files(self) -> Mapping[str, Path]:
        """The files that the tables come from, by split, where each comes from one."""
        return source_files(self.source)

    def where(self, split: str) -> str:
        """What to call a table in messages."""
        return f"{self.files.get(split, self.source)} ({split})"

    @property
    def split_off(self) -> dict[str, float | int]:
        """Splits that the publisher does not give -> the fraction, or number, of training rows to take for them."""
        return {}

    @property
    def task_description(self) -> dict[str, Any]:
        """The task that this benchmark poses, as a plain dict for `build_task`."""
        raise NotImplementedError(f"{type(self).__name__} has to describe its task: task_description")

    def check(self, split: str) -> Dataset:
        """The rows of a published table, each with its number `row` from 1, once all of them are known to be right.

        Raises:
            UserError: A row is wrong.
        """
        raise NotImplementedError(f"{type(self).__name__} has to check its rows: check")

    def id_column(self, split: str) -> str | None:
        """The column of the publisher's names of rows, no two of which may be the same; None if there is none."""
        return None

    def encode(self, table: Dataset, split: str) -> Dataset:
        """The columns that the collator takes, and `length`, the number of tokens; a row may give several or none."""
        raise NotImplementedError(f"{type(self).__name__} has to make tokens of its rows: encode")

    def collator(self) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Makes a batch of encoded rows: padded to the longest."""
        return DataCollatorWithPadding(self.tokenizer)

    def evaluated(self, stage: str) -> dict[str, str]:
        """Which splits are evaluated: a name, which stands before those of metrics, -> split; the main one has none.

        Args:
            stage: `validate`, `test` or `predict`.
        """
        return {"": "validation" if stage == "validate" else "test"}

    def example(self, split: str, index: int) -> dict[str, Any]:
        """What predictions of a row show of it: its number, its texts, and as `true` what was asked for, if known."""
        return dict(self.table(split)[index])

    def prediction_files(self, name: str) -> dict[str, Callable[[Sequence[dict[str, Any]]], str]]:
        """Further files of `predict`: a name -> what makes its text of the lines of `predictions.jsonl`, in order.

        Args:
            name: Of the predicted set, as in `evaluated`.
        """
        return {}

    # Splits

    def divide(self, table: Dataset, sizes: Mapping[str, float | int], where: str) -> dict[str, Dataset]:
        """Splits `sizes` off the checked training rows, with the proportions of the labels; the rest is `train`."""
        return split_rows(table, sizes, self.split_seed, where)

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
                self._checked |= self.divide(self._check("train"), taken, self.where("train"))
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
            self._encoded[split] = self.encode(self.table(split), split)
        return self._encoded[split]

    @property
    def splits(self) -> list[str]:
        """All splits that some verb uses."""
        found = ["train"]
        for stage in ("validate", "test", "predict"):
            # Where the test split has no labels, `test` says so, and `predict` still uses it.
            with contextlib.suppress(UserError):
                found += self.evaluated(stage).values()
        available = {*self.raw, *self.split_off}
        return [split for split in dict.fromkeys(found) if split in available]

    def doubts(self, splits: Iterable[str]) -> list[str]:
        """What makes scores on these splits mean less than they seem, a sentence each."""
        train = self.table("train")
        of_rows = [rows_in_both(train, self.table(split), self.where(split)) for split in splits]
        return [*labels_without_rows(train, self.where("train")), *(doubt for doubts in of_rows for doubt in doubts)]

    @property
    def limits(self) -> Mapping[str, int]:
        """After how many tokens what is cut; the one text, or sequence of texts, of most benchmarks has no name."""
        return {"": self.max_length}

    @property
    def measure(self) -> Callable[[dict[str, list]], dict[str, list[int]]]:
        """Makes of checked rows the numbers of their tokens before anything is cut, by the names of `limits`."""
        columns = input_columns(self.table(self.splits[0]))
        return partial(of_texts, columns=columns, tokenizer=self.tokenizer)

    def lengths(self, split: str) -> dict[str, np.ndarray]:
        """The number of tokens of each example before anything is cut, by the names of `limits`."""
        table = self.table(split)
        counted = cached_map(
            table, self.measure, remove_columns=table.column_names, desc=f"Measuring {self.source} ({split})"
        )
        return {name: whole_numbers(counted, name) for name in self.limits}

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
        """On one process a node: downloads, checks and tokenises into the cache, and says what is doubtful."""
        self.setup(self._stage)
        for doubt in self.doubts(self._evaluated("fit").values()) if self._stage == "fit" else ():
            rank_zero_warn(doubt)

    def setup(self, stage: str) -> None:
        """On every process: finds the result in the cache."""
        for split in (["train"] if stage == "fit" else []) + list(self._evaluated(stage).values()):
            self.encoded(split)

    # Batches

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of similar lengths."""
        return self._loader(self.encoded("train"), self._training_batches())

    def val_dataloader(self) -> list[DataLoader]:
        """Every validation example once."""
        return self._evaluation_loaders("validate")

    def test_dataloader(self) -> list[DataLoader]:
        """Every test example once."""
        return self._evaluation_loaders("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """Every example once, in the order of the file."""
        return self._evaluation_loaders("predict", by_length=False)

    def rows_of_batch(self, epoch: int, number: int) -> list[int]:
        """The rows of a training batch on this device, by their numbers in the published table.

        Args:
            epoch: Number of the epoch, from 0.
            number: Number of the batch in it, from 0.
        """
        batches = self._training_batches()
        batches.set_epoch(epoch)
        return self.rows_of_training(next(islice(batches, number, None)))

    def rows_of_training(self, indices: Sequence[int]) -> list[int]:
        """The numbers, in the published table, of the rows that encoded training rows come from."""
        table = self.table("train")
        return [table[index]["row"] for index in indices]

    def _training_batches(self) -> TrainingBatches:
        return TrainingBatches(whole_numbers(self.encoded("train"), "length"), self.batch_size, self.seed, *self._place)

    def _check(self, split: str) -> Dataset:
        checked, column = self.check(split), self.id_column(split)
        if column and column in self.raw[split].column_names:
            check_ids(self.raw[split], self.where(split), column)
        return checked

    def _drawn(self, table: Dataset, size: int) -> Dataset:
        if size > len(table):
            raise UserError(
                f"train_size is {size}, and '{self.source}' has {len(table)} training examples; give fewer."
            )
        if size == len(table):
            return table
        return split_rows(table, {"drawn": size}, self.split_seed, self.where("train"))["drawn"]

    def _evaluation_loaders(self, stage: str, by_length: bool = True) -> list[DataLoader]:
        loaders = []
        for split in self._evaluated(stage).values():
            rows = self.encoded(split)
            lengths = whole_numbers(rows, "length")
            batches = EvaluationBatches(lengths, self.batch_size, *self._place, by_length=by_length)
            loaders.append(self._loader(rows, batches))
        return loaders

    def _evaluated(self, stage: str) -> dict[str, str]:
        return self.evaluated("validate" if stage == "fit" else stage)

    def _loader(self, rows: Dataset, batches: Sampler) -> DataLoader:
        return DataLoader(
            rows.remove_columns("length"),
            batch_sampler=batches,
            collate_fn=self.collator(),
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
