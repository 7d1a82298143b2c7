"""What makes scores mean less than they seem: rows that were trained on, and labels that were not."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List, Value

# Columns of checked tables that hold texts which the model is not given.
_ASKED_FOR = ("id", "target", "answers")


def input_columns(table: Dataset) -> list[str]:
    """The columns of checked rows that hold what the model is given: texts, or lists of them."""
    texts = (Value("string"), List(Value("string")))
    return [name for name, feature in table.features.items() if feature in texts and name not in _ASKED_FOR]


def rows_in_both(train: Dataset, other: Dataset, where: str) -> list[str]:
    """A sentence if rows of `other`, which is called `where`, have all their texts from a row of `train`."""
    columns = input_columns(other)
    theirs = pa.concat_arrays(list(_texts(other, columns)))
    found = [texts.filter(pc.is_in(texts, value_set=theirs)) for texts in _texts(train, columns)]
    shared = pc.is_in(theirs, value_set=pa.concat_arrays(found)).to_numpy(zero_copy_only=False)
    if not shared.any():
        return []
    first = np.asarray(other.with_format("numpy")["row"][:])[shared].min()
    return [
        f"{where}: {shared.sum()} of {len(other)} rows are trained on too, the first of them row {first}; what they "
        "score says little about other texts."
    ]


def labels_without_rows(train: Dataset, where: str) -> list[str]:
    """A sentence if no row of `train`, which is called `where`, has one of the classes."""
    feature = train.features.get("label")
    if not isinstance(feature, ClassLabel):
        return []
    counts = np.bincount(train.with_format("numpy")["label"][:], minlength=len(feature.names))
    absent = [repr(name) for name, count in zip(feature.names, counts, strict=True) if not count]
    return [f"{where}: no row has the label {' or '.join(absent)}, which so cannot be learnt."] if absent else []


def _texts(table: Dataset, columns: Sequence[str]) -> Iterator[pa.Array]:
    """All texts of each row as one, in parts that fit into memory."""
    for part in table.select_columns(columns).with_format("arrow").iter(batch_size=10_000):
        cells = [part[name].combine_chunks() for name in columns]
        joined = [pc.binary_join(cell, "\x1e") if pa.types.is_list(cell.type) else cell for cell in cells]
        yield pc.binary_join_element_wise(*joined, "\x1f")
