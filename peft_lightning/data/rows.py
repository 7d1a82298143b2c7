"""From a table as published to checked rows of text and label, and from those to tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from peft_lightning.data.files import label_names, require_column
from peft_lightning.errors import UserError


def checked_rows(
    table: Dataset,
    where: str,
    text_columns: Mapping[str, str],
    label_column: str,
    labels: list[str],
    label_values: Mapping[str, int],
) -> Dataset:
    """Rows with `row`, their number in the table from 1, `text`, perhaps `text_pair`, and `label`, a number.

    Args:
        table: The table as published.
        where: What to call it in messages.
        text_columns: `text` and perhaps `text_pair` -> its column in `table`.
        label_column: The label's column.
        labels: Names of the labels.
        label_values: What the column holds, as text -> number of the label.

    Raises:
        UserError: A column is missing, a text is empty, or a label is not among the labels; row numbers start at 1 and
            do not count a header.
    """
    for role, column in text_columns.items():
        require_column(table, column, f"--data.{role}_column", where)
    require_column(table, label_column, "--data.label_column", where)
    texts = {role: Value("string") for role in text_columns}
    return table.map(
        _check_batch,
        batched=True,
        with_indices=True,
        remove_columns=table.column_names,
        features=Features({"row": Value("int64"), **texts, "label": ClassLabel(names=labels)}),
        desc=f"Checking {where}",
        fn_kwargs={
            "where": where,
            "text_columns": dict(text_columns),
            "label_column": label_column,
            "declared": label_names(table, label_column),
            "labels": labels,
            "label_values": dict(label_values),
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
    # Module-level functions with explicit arguments: `datasets` finds the result again in its cache by their content.
    return table.map(
        _encode_batch,
        batched=True,
        remove_columns=["row", *texts],
        desc=f"Tokenising {where}",
        fn_kwargs={"texts": texts, "tokenizer": tokenizer, "max_length": max_length},
    )


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


def label_text(value: Any) -> str:
    """A label as its file writes it, without the blanks around it that nobody sees."""
    return str(value).strip()


def _check_batch(
    batch: dict[str, list],
    indices: list[int],
    where: str,
    text_columns: dict[str, str],
    label_column: str,
    declared: list[str] | None,
    labels: list[str],
    label_values: dict[str, int],
) -> dict[str, list]:
    for column in text_columns.values():
        check_texts(batch[column], where, column, first_row=indices[0] + 1)
    numbers = []
    for index, value in zip(indices, batch[label_column], strict=True):
        known = declared is not None and isinstance(value, int) and 0 <= value < len(declared)
        name = declared[value] if declared is not None and known else label_text(value)
        if name not in label_values:
            raise UserError(
                f"{where}, row {index + 1}: column '{label_column}' holds {value!r}, which is not one of the labels "
                f"{labels}; correct the row, or declare the label."
            )
        numbers.append(label_values[name])
    texts = {role: batch[column] for role, column in text_columns.items()}
    return {"row": [index + 1 for index in indices], **texts, "label": numbers}


def _encode_batch(
    batch: dict[str, list], texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Any]:
    encoded = tokenizer(*(batch[column] for column in texts), truncation=True, max_length=max_length)
    return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}
