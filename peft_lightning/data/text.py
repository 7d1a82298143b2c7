"""What benchmarks of texts, or pairs of texts, and their labels share."""

from collections.abc import Mapping
from typing import Any

from datasets import ClassLabel, Dataset

from peft_lightning.data.base import Benchmark
from peft_lightning.data.labels import ClassColumn, ScoreColumn
from peft_lightning.data.rows import checked_rows, encoded_rows


class TextDataModule(Benchmark):
    """Texts, or pairs of texts, and their labels.

    A benchmark is a subclass that says where its tables are (`raw`), which columns they have and which labels.

    Args:
        kwargs: Arguments of `Benchmark`.
    """

    text_columns: Mapping[str, str]
    label_column: str
    # Whether options say which columns these are.
    columns_by_option = False
    # Whether the publisher's rows with an empty text are used, with a warning; elsewhere they are refused.
    may_be_empty = False
    # What chooses the best checkpoint.
    monitor = "accuracy"

    def __init__(self, source: str, **kwargs: Any):
        super().__init__(source=source, **kwargs)

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the order of their numbers."""
        raise NotImplementedError(f"{type(self).__name__} has to name its labels: labels")

    @property
    def label_values(self) -> dict[str, int]:
        """What the label column may hold, as text -> number of the label."""
        return {name: number for number, name in enumerate(self.labels)}

    def label_of(self, split: str) -> ClassColumn | ScoreColumn | None:
        """The column of the label in a split; None where labels are not published."""
        return ClassColumn(self.label_column, self.labels, self.label_values, self.columns_by_option)

    @property
    def task_description(self) -> dict[str, Any]:
        """Classification."""
        return {
            "type": "classification",
            "labels": self.labels,
            "max_length": self.max_length,
            "monitor": self.monitor,
            "mode": "max",
        }

    def check(self, split: str) -> Dataset:
        """Rows of `text`, perhaps `text_pair`, and the number of a label."""
        return checked_rows(
            self.raw[split],
            self.where(split),
            self.text_columns,
            self.label_of(split),
            by_option=self.columns_by_option,
            may_be_empty=self.may_be_empty,
        )

    def encode(self, table: Dataset, split: str) -> Dataset:
        """Tokens and label."""
        return encoded_rows(table, self.tokenizer, self.max_length, f"{self.source} ({split})")

    def example(self, split: str, index: int) -> dict[str, Any]:
        """Number, texts, and the name of the label, or the score."""
        row = super().example(split, index)
        if "label" not in row:
            return row
        label, feature = row.pop("label"), self.table(split).features["label"]
        return {**row, "true": feature.names[label] if isinstance(feature, ClassLabel) else label}
