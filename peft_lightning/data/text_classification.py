"""Any table of texts and labels."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from peft_lightning.data.files import FORMATS, label_names, read_file, read_source, require_column
from peft_lightning.data.labels import found_labels, label_text
from peft_lightning.data.text import TextDataModule


class TextClassification(TextDataModule):
    """A CSV, TSV, JSON lines or Parquet file with a column of text, or two, and a column of labels.

    One file is split 80/10/10, stratified, by `split_seed`. Of a directory or Hub dataset the splits are taken as they
    are; a missing validation split is a tenth of the training rows.

    Args:
        source: A file; a directory with a file a split (`train.csv`, `validation.csv`, `test.csv`); or a Hub id.
        text_column: Column of the text.
        text_pair_column: Column of the second text, for pairs.
        label_column: Column of the label.
        labels: The labels in the order of their numbers; by default those that the dataset declares, or else all that
            the training rows hold, sorted.
        kwargs: Arguments of `TextDataModule`.
    """

    columns_by_option = True

    def __init__(
        self,
        source: str,
        text_column: str = "text",
        text_pair_column: str | None = None,
        label_column: str = "label",
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(source=source, **kwargs)
        self.text_columns = {"text": text_column} | ({"text_pair": text_pair_column} if text_pair_column else {})
        self.label_column = label_column
        self.declared_labels = labels

    @property
    def labels(self) -> list[str]:
        """The declared labels, or those found."""
        return self._labels

    @cached_property
    def _labels(self) -> list[str]:
        if self.declared_labels:
            return [label_text(label) for label in self.declared_labels]
        split = "train" if "train" in self.raw else next(iter(self.raw))
        table = self.raw[split]
        require_column(table, self.label_column, "--data.label_column", self.where(split))
        declared = label_names(table, self.label_column)
        if declared:
            return declared
        batches = table.select_columns(self.label_column).iter(batch_size=10_000)
        cells = (cell for batch in batches for cell in batch[self.label_column])
        return found_labels(cells, self.where(split), self.label_column)

    @property
    def split_off(self) -> dict[str, float | int]:
        """A tenth for each split that one file, or the dataset, lacks."""
        if Path(self.source).is_file():
            return {"validation": 0.1, "test": 0.1}
        return {} if "validation" in self.raw else {"validation": 0.1}

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The file as one table, or the splits."""
        path = Path(self.source)
        if path.is_file() or path.suffix.lower() in FORMATS:
            return {"train": read_file(path)}
        return read_source(self.source, self.revision)
