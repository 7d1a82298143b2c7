"""Amazon polarity: 3.6 million training and 400,000 test reviews, positive or negative (Zhang et al. 2015)."""

from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from peft_lightning.data.base import TextDataModule
from peft_lightning.data.files import read_file, read_source

COLUMNS = ["label", "title", "content"]


class AmazonPolarity(TextDataModule):
    """The content of a review without its title, two classes; accuracy.

    Args:
        source: Hub id, or a local directory with the publisher's `train.csv` and `test.csv` (no header; label, title,
            content; label 1 is negative and 2 positive), or one laid out as on the Hub.
        max_length: Number of tokens after which a review is cut.
        validation_size: Number of training reviews held out for validation; the publisher has no such split.
        kwargs: Arguments of `TextDataModule`.
    """

    text_columns = {"text": "content"}
    label_column = "label"

    def __init__(
        self,
        source: str = "fancyzhx/amazon_polarity",
        max_length: int = 100,
        validation_size: int = 10_000,
        **kwargs: Any,
    ):
        super().__init__(source=source, max_length=max_length, **kwargs)
        self.validation_size = validation_size

    @property
    def labels(self) -> list[str]:
        """`negative` and `positive`, as on the Hub."""
        return ["negative", "positive"]

    @property
    def label_values(self) -> dict[str, int]:
        """Names, or the numbers of the publisher's file."""
        return super().label_values | {"1": 0, "2": 1}

    @property
    def split_off(self) -> dict[str, float | int]:
        """The validation split."""
        return {} if "validation" in self.raw else {"validation": self.validation_size}

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The publisher's two files, or what the Hub has."""
        files = {split: Path(self.source) / f"{split}.csv" for split in ("train", "test")}
        if any(path.is_file() for path in files.values()):
            return {split: read_file(path, column_names=COLUMNS) for split, path in files.items() if path.is_file()}
        return read_source(self.source, self.revision)
