"""IMDB: 25,000 training and 25,000 test reviews of films, positive or negative (Maas et al. 2011, ACL, P11-1015)."""

from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from peft_lightning.data.files import read_source
from peft_lightning.data.no_validation import NoValidation
from peft_lightning.data.readers import read_folders, require_columns

HUB = "stanfordnlp/imdb"
SPLITS = ("train", "test")


class IMDB(NoValidation):
    """One review, two classes; accuracy.

    Args:
        source: Hub id, the publisher's unpacked directory `aclImdb` (`train/pos/*.txt` and so on; reviews without label
            are not read), or a directory laid out as on the Hub.
        max_length: Number of tokens after which a review is cut.
        validation_size: Number of training reviews held out for validation; the publisher has no such split.
        kwargs: Arguments of `NoValidation`.
    """

    text_columns = {"text": "text"}
    label_column = "label"

    def __init__(self, source: str = HUB, max_length: int = 512, validation_size: int = 2_500, **kwargs: Any):
        super().__init__(source=source, max_length=max_length, validation_size=validation_size, **kwargs)

    @property
    def labels(self) -> list[str]:
        """`neg` and `pos`, as in the archive and on the Hub."""
        return ["neg", "pos"]

    @property
    def label_values(self) -> dict[str, int]:
        """Names or numbers."""
        return super().label_values | {"0": 0, "1": 1}

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The archive's folders, or what the Hub has; without the reviews that have no label."""
        directory = Path(self.source)
        if (directory / "train").is_dir() and not any((directory / "train").glob("*.parquet")):
            return {split: read_folders([directory / split], self.labels, "utf-8", "*.txt") for split in SPLITS}
        tables = read_source(self.source, self.revision)
        tables.pop("unsupervised", None)
        wanted = f"the directory aclImdb, or one laid out like {HUB}"
        return {
            split: require_columns(table, ["text", "label"], f"'{self.source}' ({split})", wanted)
            for split, table in tables.items()
        }
