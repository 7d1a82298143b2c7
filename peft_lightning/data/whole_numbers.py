"""A column of whole numbers in memory: the only thing that is kept there of every row."""

import numpy as np
from datasets import Dataset


def whole_numbers(table: Dataset, column: str) -> np.ndarray:
    """One column as `int32`, four bytes a row; the table is read in pieces."""
    values, filled = np.empty(len(table), dtype=np.int32), 0
    for batch in table.select_columns(column).with_format("numpy").iter(batch_size=10_000):
        values[filled : filled + len(batch[column])] = batch[column]
        filled += len(batch[column])
    return values
