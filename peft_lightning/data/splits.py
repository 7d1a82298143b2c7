"""Splits of tables, by seed and with the proportions of the labels."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import ClassLabel, Dataset, Value, concatenate_datasets
from datasets.utils.stratify import approximate_mode
from lightning.pytorch.utilities import rank_zero_warn

from peft_lightning.data.whole_numbers import whole_numbers
from peft_lightning.errors import UserError


def split_rows(table: Dataset, sizes: Mapping[str, float | int], seed: int, where: str) -> dict[str, Dataset]:
    """Splits off parts, with the proportions of the labels if there are any; all parts keep the order of the table.

    Args:
        table: Rows with the column `row`, and perhaps `label`, a `ClassLabel`.
        sizes: Name of each part to split off -> fraction of `table`, or number of rows.
        seed: Seed of the split.
        where: What to call the table in messages.

    Returns:
        The parts, and what is left as `train`.

    Raises:
        UserError: A label has too few rows to be in every part, or a part is too large or too small.
    """
    # Drawn here, in a few bytes a row: `Dataset.train_test_split` reads labels one by one, minutes for a million rows.
    labels, rest, parts = None, np.arange(len(table), dtype=np.int32), {}
    if isinstance(table.features.get("label"), ClassLabel):
        labels = whole_numbers(table, "label")
        _check_label_counts(labels, table.features["label"].names, len(sizes) + 1, where)
    for name, size in sizes.items():
        count = size if isinstance(size, int) else round(size * len(table))
        try:
            left, taken = _draw(None if labels is None else labels[rest], len(rest), count, seed)
        except ValueError as error:
            raise UserError(
                f"{where}: a {name} split of {count} rows cannot be taken from {len(rest)} rows so that every label "
                f"is in both ({error}); give more rows, another size, or separate files for the splits."
            ) from error
        parts[name], rest = rest[taken], rest[left]
    return {name: _part(table, rows, f"Splitting {where}: {name}") for name, rows in {"train": rest, **parts}.items()}


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
    labels = whole_numbers(table, "label")
    rare = np.bincount(labels, minlength=1)[labels] <= len(sizes)
    common = table.select(np.flatnonzero(~rare))
    try:
        parts = split_rows(common, sizes, seed, where)
    except UserError:
        rank_zero_warn(f"{where} has too few rows for its labels to be in every split; the splits are drawn at random.")
        return _at_random(table, sizes, seed, where)
    if rare.any():
        train = concatenate_datasets([parts["train"], table.select(np.flatnonzero(rare))])
        parts["train"] = train.select(np.argsort(whole_numbers(train, "row")))
    return parts


def _at_random(table: Dataset, sizes: Mapping[str, int], seed: int, where: str) -> dict[str, Dataset]:
    parts = split_rows(table.cast_column("label", Value("int64")), sizes, seed, where)
    return {name: part.cast_column("label", table.features["label"]) for name, part in parts.items()}


def _draw(labels: np.ndarray | None, rows: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What is left, and what is taken, as `Dataset.train_test_split` draws it; but for the order of what is taken."""
    if not 0 < count < rows:
        raise ValueError(f"{count} of {rows}")
    generator = np.random.default_rng(seed)
    if labels is not None:
        return _draw_stratified(labels, rows - count, count, generator)
    order = generator.permutation(np.arange(rows, dtype=np.int32))
    return order[count:], order[:count]


def _draw_stratified(
    labels: np.ndarray, left: int, taken: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """As `stratified_shuffle_split_generate_indices` of `datasets`, which makes lists of 40 bytes a row."""
    classes, counts = np.unique(labels, return_counts=True)
    if min(left, taken) < len(classes) or counts.min() < 2:
        raise ValueError(f"{len(classes)} labels, the rarest of {counts.min()} rows, in {min(left, taken)} rows")
    of_left = approximate_mode(counts, left, generator)
    of_taken = approximate_mode(counts - of_left, taken, generator)
    lefts, takens = [], []
    for label, first, second in zip(classes, of_left, of_taken, strict=True):
        order = generator.permutation(np.flatnonzero(labels == label).astype(np.int32))
        lefts.append(order[:first])
        takens.append(order[first : first + second])
    # The order of what is left decides what the next part is drawn from.
    return generator.permutation(np.concatenate(lefts)), np.concatenate(takens)


def _part(table: Dataset, rows: np.ndarray, progress: str) -> Dataset:
    """Some rows in the order of the table; `Dataset.select` would make a list of them, 40 bytes a row."""
    chosen = np.zeros(len(table), dtype=bool)
    chosen[rows] = True
    return table.filter(
        _is_chosen,
        with_indices=True,
        input_columns=table.column_names[:1],
        batched=True,
        batch_size=10_000,
        fn_kwargs={"chosen": chosen},
        desc=progress,
    )


def _is_chosen(cells: Sequence, indices: list[int], chosen: np.ndarray) -> np.ndarray:
    return chosen[indices]


def _check_label_counts(labels: np.ndarray, names: Sequence[str], least: int, where: str) -> None:
    for number, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < least:
            raise UserError(
                f"{where}: label '{names[number]}' has {count} rows, too few to be in each of {least} splits; correct "
                "the label, give more rows, or separate files for the splits."
            )
