"""From a table as published to checked rows of text and label, and from those to tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset, Features, Value
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from peft_lightning.data.cache import cached_map
from peft_lightning.data.files import label_names, require_column
from peft_lightning.data.labels import ClassColumn, ScoreColumn, label_text
from peft_lightning.errors import UserError

# In a table of chosen rows, the column of their numbers, from 1, in the file that they are from.
ROW_OF_FILE = "__row__"


def checked_rows(
    table: Dataset,
    where: str,
    text_columns: Mapping[str, str],
    label: ClassColumn | ScoreColumn | None,
    left_out: Mapping[str, Sequence[str]] | None = None,
    by_option: bool = False,
    may_be_empty: bool = False,
) -> Dataset:
    """Rows with `row`, `text`, perhaps `text_pair`, and perhaps `label`, a number.

    `row` is the number from 1 in the table, or in the file that its rows were chosen from.

    Args:
        table: The table as published.
        where: What to call it in messages.
        text_columns: `text` and perhaps `text_pair` -> its column in `table`.
        label: The label's column; None for rows whose labels are not known.
        left_out: Column -> cells, as text, whose rows are no examples; the other rows keep their numbers.
        by_option: Whether options say which columns these are.
        may_be_empty: Whether texts may be empty; a warning then says how many are.

    Raises:
        UserError: A column is missing, a text is empty that may not be, or a label is not what it may be; row numbers
            start at 1 and do not count a header.
    """
    for role, column in text_columns.items():
        require_column(table, column, f"--data.{role}_column" if by_option else None, where)
    features: dict[str, Any] = {"row": Value("int64"), **{role: Value("string") for role in text_columns}}
    if label is not None:
        require_column(table, label.column, "--data.label_column" if by_option else None, where)
        features["label"] = label.feature
    checked = cached_map(
        table,
        _check_batch,
        with_indices=True,
        remove_columns=table.column_names,
        features=Features(features),
        desc=f"Checking {where}",
        fn_kwargs={
            "where": where,
            "text_columns": dict(text_columns),
            "label": label,
            "declared": label_names(table, label.column) if label else None,
            "left_out": {column: list(cells) for column, cells in (left_out or {}).items()},
            "may_be_empty": may_be_empty,
        },
    )
    if may_be_empty and (empty := rows_with_empty_texts(checked, text_columns)):
        first = min(empty)
        rank_zero_warn(
            f"{where}: {len(empty)} rows have an empty text, the first of them row {first} (column '{empty[first]}'); "
            "they are used like the others."
        )
    return checked


def encoded_rows(table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> Dataset:
    """Rows with `input_ids`, `attention_mask` and so on, `label` and `length`, the number of tokens.

    Args:
        table: Checked rows.
        tokenizer: The backbone's tokenizer.
        max_length: Number of tokens after which a row is cut; of a pair the longer text is cut first.
        where: What to call it in the progress bar.
    """
    texts = [column for column in ("text", "text_pair") if column in table.column_names]
    kept = [column for column in table.column_names if column not in ("row", *texts)]
    return cached_map(
        table,
        _encode_batch,
        remove_columns=table.column_names,
        desc=f"Tokenising {where}",
        fn_kwargs={"texts": texts, "kept": kept, "tokenizer": tokenizer, "max_length": max_length},
    )


def check_ids(table: Dataset, where: str, column: str) -> None:
    """Checks that no two rows of a published table have one id.

    Raises:
        UserError: Two have.
    """
    known: dict[Any, int] = {}
    rows = table[ROW_OF_FILE][:] if ROW_OF_FILE in table.column_names else range(1, len(table) + 1)
    for row, name in zip(rows, table[column][:], strict=True):
        if name in known:
            raise UserError(
                f"{where}, row {row}: column '{column}' holds {name!r}, the id of row {known[name]}; give each row its "
                "own."
            )
        known[name] = row


def check_texts(texts: Sequence[Any], where: str, column: str, first_row: int = 1, may_be_empty: bool = False) -> None:
    """Checks that every text is one.

    Raises:
        UserError: A text is empty that may not be, or no text at all.
    """
    for row, text in enumerate(texts, start=first_row):
        if is_empty(text):
            if may_be_empty:
                continue
            raise UserError(f"{where}, row {row}: column '{column}' is empty; correct the row or remove it.")
        if not isinstance(text, str):
            raise UserError(f"{where}, row {row}: column '{column}' holds {text!r}, which is no text; correct the row.")


def is_empty(text: Any) -> bool:
    """Whether a cell is missing or holds nothing but blanks."""
    return text is None or (isinstance(text, str) and not text.strip())


def rows_with_empty_texts(checked: Dataset, text_columns: Mapping[str, str]) -> dict[int, str]:
    """The numbers of checked rows that have an empty text -> the column of the text in the published table.

    Args:
        checked: Rows with `row` and the texts.
        text_columns: The texts -> their columns in the published table.
    """
    found: dict[int, str] = {}
    for batch in checked.select_columns(["row", *text_columns]).with_format("arrow").iter(batch_size=10_000):
        for role, column in text_columns.items():
            empty = pc.equal(pc.utf8_trim_whitespace(batch[role]), "")
            found |= dict.fromkeys(batch["row"].filter(empty).to_pylist(), column)
    return found


def _check_batch(
    batch: dict[str, list],
    indices: list[int],
    where: str,
    text_columns: dict[str, str],
    label: ClassColumn | ScoreColumn | None,
    declared: list[str] | None,
    left_out: dict[str, list[str]],
    may_be_empty: bool,
) -> dict[str, list]:
    numbers = batch.get(ROW_OF_FILE) or [index + 1 for index in indices]
    kept = [
        place
        for place in range(len(numbers))
        if not any(_cell(batch[column][place]) in cells for column, cells in left_out.items())
    ]
    numbers = [numbers[place] for place in kept]
    batch = {column: [cells[place] for place in kept] for column, cells in batch.items()}
    for column in text_columns.values():
        for number, text in zip(numbers, batch[column], strict=True):
            check_texts([text], where, column, number, may_be_empty)
    texts = {role: [text or "" for text in batch[column]] for role, column in text_columns.items()}
    rows: dict[str, list] = {"row": numbers, **texts}
    if label is not None:
        cells = zip(numbers, batch[label.column], strict=True)
        rows["label"] = [label.read(value, declared, f"{where}, row {number}") for number, value in cells]
    return rows


def _cell(value: Any) -> str:
    return "" if value is None else label_text(value)


def _encode_batch(
    batch: dict[str, list], texts: list[str], kept: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Any]:
    encoded = tokenizer(*(batch[column] for column in texts), truncation=True, max_length=max_length)
    # Columns that are handed through rather than returned are converted row by row where the table is a split.
    labels = {column: batch[column] for column in kept}
    return {**labels, **encoded, "length": [len(ids) for ids in encoded["input_ids"]]}
