"""Splits of tables some of whose labels are too rare to be in every part."""

from collections.abc import Mapping

import numpy as np
from datasets import Dataset, Value, concatenate_datasets
from lightning.pytorch.utilities import rank_zero_warn

from peft_lightning.data.files import split_rows
from peft_lightning.errors import UserError


def split_with_rare_labels(table: Dataset, sizes: Mapping[str, int], seed: int, where: str) -> dict[str, Dataset]:
    """As `split_rows`, but labels with fewer rows than there are parts stay in `train`.

    Where the parts are too small to hold every label, they are drawn at random, and a warning says so.

    Args:
        table: Rows with the columns `row` and `label`, a `ClassLabel`.
        sizes: Name of each part to split off -> number of rows.
        seed: Seed of the split.
        where: What to call the table in messages.

    Raises:
        UserError: There are too few rows.
    """
    labels = np.asarray(table.with_format("numpy")["label"][:])
    rare = np.bincount(labels, minlength=1)[labels] <= len(sizes)
    common = table.select(np.flatnonzero(~rare))
    try:
        parts = split_rows(common, sizes, seed, where)
    except UserError:
        rank_zero_warn(f"{where} has too few rows for its labels to be in every split; the splits are drawn at random.")
        return _at_random(table, sizes, seed, where)
    if rare.any():
        train = concatenate_datasets([parts["train"], table.select(np.flatnonzero(rare))])
        parts["train"] = train.select(np.argsort(train.with_format("numpy")["row"][:]))
    return parts


def _at_random(table: Dataset, sizes: Mapping[str, int], seed: int, where: str) -> dict[str, Dataset]:
    parts = split_rows(table.cast_column("label", Value("int64")), sizes, seed, where)
    return {name: part.cast_column("label", table.features["label"]) for name, part in parts.items()}
