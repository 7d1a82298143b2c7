"""From a table as published to checked rows of text and label, and from those to tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from peft_lightning.data.cache import cached_map
from peft_lightning.data.files import label_names, require_column
from peft_lightning.data.labels import ClassColumn, ScoreColumn, label_text
from peft_lightning.errors import UserError


def checked_rows(
    table: Dataset,
    where: str,
    text_columns: Mapping[str, str],
    label: ClassColumn | ScoreColumn | None,
    left_out: Mapping[str, Sequence[str]] | None = None,
    by_option: bool = False,
) -> Dataset:
    """Rows with `row`, their number in the table from 1, `text`, perhaps `text_pair`, and perhaps `label`, a number.

    Args:
        table: The table as published.
        where: What to call it in messages.
        text_columns: `text` and perhaps `text_pair` -> its column in `table`.
        label: The label's column; None for rows whose labels are not known.
        left_out: Column -> cells, as text, whose rows are no examples; the other rows keep their numbers.
        by_option: Whether options say which columns these are.

    Raises:
        UserError: A column is missing, a text is empty, or a label is not what it may be; row numbers start at 1 and do
            not count a header.
    """
    for role, column in text_columns.items():
        require_column(table, column, f"--data.{role}_column" if by_option else None, where)
    features: dict[str, Any] = {"row": Value("int64"), **{role: Value("string") for role in text_columns}}
    if label is not None:
        require_column(table, label.column, "--data.label_column" if by_option else None, where)
        features["label"] = label.feature
    return cached_map(
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
        },
    )


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


def check_ids(names: Sequence[Any], where: str, column: str) -> None:
    """Checks that no two rows have one id.

    Raises:
        UserError: Two have.
    """
    rows: dict[Any, int] = {}
    for row, name in enumerate(names, start=1):
        if name in rows:
            raise UserError(
                f"{where}, row {row}: column '{column}' holds {name!r}, the id of row {rows[name]}; give each row its "
                "own."
            )
        rows[name] = row


def check_texts(texts: Sequence[Any], where: str, column: str, first_row: int = 1) -> None:
    """Checks that every text is one.

    Raises:
        UserError: A text is empty or no text at all.
    """
    for row, text in enumerate(texts, start=first_row):
        if text is None or (isinstance(text, str) and not text.strip()):
            raise UserError(f"{where}, row {row}: column '{column}' is empty; correct the row or remove it.")
        if not isinstance(text, str):
            raise UserError(f"{where}, row {row}: column '{column}' holds {text!r}, which is no text; correct the row.")


def _check_batch(
    batch: dict[str, list],
    indices: list[int],
    where: str,
    text_columns: dict[str, str],
    label: ClassColumn | ScoreColumn | None,
    declared: list[str] | None,
    left_out: dict[str, list[str]],
) -> dict[str, list]:
    kept = [
        place
        for place in range(len(indices))
        if not any(_cell(batch[column][place]) in cells for column, cells in left_out.items())
    ]
    indices = [indices[place] for place in kept]
    batch = {column: [cells[place] for place in kept] for column, cells in batch.items()}
    for column in text_columns.values():
        for index, text in zip(indices, batch[column], strict=True):
            check_texts([text], where, column, first_row=index + 1)
    rows = {"row": [index + 1 for index in indices], **{role: batch[column] for role, column in text_columns.items()}}
    if label is not None:
        cells = zip(indices, batch[label.column], strict=True)
        rows["label"] = [label.read(value, declared, f"{where}, row {index + 1}") for index, value in cells]
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
