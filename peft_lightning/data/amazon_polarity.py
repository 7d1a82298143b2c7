"""Amazon polarity: 3.6 million training and 400,000 test reviews, positive or negative (Zhang et al. 2015)."""

from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from peft_lightning.data.files import read_file, read_source, source_files
from peft_lightning.data.no_validation import NoValidation

COLUMNS = ["label", "title", "content"]


class AmazonPolarity(NoValidation):
    """The content of a review without its title, two classes; accuracy.

    Args:
        source: Hub id, or a local directory with the publisher's `train.csv` and `test.csv` (no header; label, title,
            content; label 1 is negative and 2 positive), or one laid out as on the Hub.
        max_length: Number of tokens after which a review is cut.
        validation_size: Number of training reviews held out for validation; the publisher has no such split.
        kwargs: Arguments of `NoValidation`.
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
        super().__init__(source=source, max_length=max_length, validation_size=validation_size, **kwargs)

    @property
    def labels(self) -> list[str]:
        """`negative` and `positive`, as on the Hub."""
        return ["negative", "positive"]

    @property
    def label_values(self) -> dict[str, int]:
        """Names or numbers; the publisher's files count from 1, copies laid out as on the Hub from 0."""
        return super().label_values | ({"1": 0, "2": 1} if self._published_files() else {"0": 0, "1": 1})

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The publisher's two files, or what the Hub has."""
        files = self._published_files()
        if files:
            return {split: read_file(path, column_names=COLUMNS) for split, path in files.items()}
        return read_source(self.source, self.revision)

    @property
    def files(self) -> dict[str, Path]:
        """The publisher's two files, or others that are named like splits."""
        return self._published_files() or source_files(self.source)

    def _published_files(self) -> dict[str, Path]:
        files = {split: Path(self.source) / f"{split}.csv" for split in ("train", "test")}
        return {split: path for split, path in files.items() if path.is_file()}
