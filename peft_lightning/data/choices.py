"""What benchmarks share that ask to choose one of several texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from datasets import Dataset, Features, List, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from peft_lightning.data.cache import cached_map
from peft_lightning.data.files import label_names
from peft_lightning.data.held_out import HeldOut
from peft_lightning.data.labels import ClassColumn
from peft_lightning.data.lengths import of_choices
from peft_lightning.data.rows import check_texts
from peft_lightning.errors import UserError

# Columns of a batch of published rows -> the contexts, and to each its choices.
Compose = Callable[[Mapping[str, list]], tuple[list[str], list[list[str]]]]


class ChoiceDataModule(HeldOut):
    """Contexts, to each of them the same number of choices, and which of these is right.

    Args:
        kwargs: Arguments of `HeldOut`.
    """

    # The columns that may not be empty, and those that may.
    text_columns: ClassVar[list[str]]
    other_columns: ClassVar[list[str]] = []
    # Names of the choices as in the published table, in the order of their numbers.
    choices: ClassVar[list[str]]
    compose: Compose

    @property
    def task_description(self) -> dict[str, Any]:
        """Multiple choice."""
        return {
            "type": "multiple_choice",
            "choices": len(self.choices),
            "max_length": self.max_length,
            "monitor": "accuracy",
            "mode": "max",
        }

    def check(self, split: str) -> Dataset:
        """Rows of `text`, `choices`, and in labelled splits the number of the right choice."""
        table, where = self.raw[split], self.where(split)
        wanted = [*self.text_columns, *self.other_columns, *([] if split == "test" else ["label"])]
        for column in wanted:
            if column not in table.column_names:
                raise UserError(
                    f"{where} has no column '{column}'; its columns are {', '.join(table.column_names)}; give "
                    f"the table as published, with the columns {', '.join(wanted)}."
                )
        features: dict[str, Any] = {"row": Value("int64"), "text": Value("string"), "choices": List(Value("string"))}
        label = None
        if split != "test":
            numbers = {str(number): number for number in range(len(self.choices))}
            label = ClassColumn("label", self.choices, numbers | {name: n for n, name in enumerate(self.choices)})
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
                "text_columns": list(self.text_columns),
                "compose": self.compose,
                "label": label,
                "declared": label_names(table, "label"),
            },
        )

    def encode(self, table: Dataset, split: str) -> Dataset:
        """Tokens of the context with each choice, and the label; `length` is that of the longest choice."""
        return cached_map(
            table,
            _encode_batch,
            remove_columns=["row", "text", "choices"],
            desc=f"Tokenising {self.source} ({split})",
            fn_kwargs={"tokenizer": self.tokenizer, "max_length": self.max_length},
        )

    @property
    def measure(self) -> Callable[[dict[str, list]], dict[str, list[int]]]:
        """The longest choice with its context."""
        return partial(of_choices, tokenizer=self.tokenizer)

    def collator(self) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Pads all choices of a batch to the longest."""
        return ChoiceCollator(self.tokenizer)

    def example(self, split: str, index: int) -> dict[str, Any]:
        """Number, context, choices, and as `true` the number of the right one, from 0."""
        row = super().example(split, index)
        return {("true" if name == "label" else name): value for name, value in row.items()}


@dataclass(frozen=True)
class ChoiceCollator:
    """Makes batches `[batch, choices, length]`.

    Args:
        tokenizer: Whose padding to use.
    """

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: list[dict[str, Any]]) -> BatchEncoding:
        """One batch: the tokenizer's tensors, and `labels [batch]` if the rows have them."""
        labels = {"labels": [row["label"] for row in rows]} if "label" in rows[0] else {}
        names = [name for name in rows[0] if name != "label"]
        flat = {name: [choice for row in rows for choice in row[name]] for name in names}
        padded = self.tokenizer.pad(flat, return_tensors="pt")
        batch = {name: tensor.view(len(rows), -1, tensor.shape[-1]) for name, tensor in padded.items()}
        return BatchEncoding({**batch, **BatchEncoding(labels, tensor_type="pt")})


def _check_batch(
    batch: dict[str, list],
    indices: list[int],
    where: str,
    text_columns: list[str],
    compose: Compose,
    label: ClassColumn | None,
    declared: list[str] | None,
) -> dict[str, list]:
    for column in text_columns:
        check_texts(batch[column], where, column, first_row=indices[0] + 1)
    texts, choices = compose(batch)
    rows: dict[str, list] = {"row": [index + 1 for index in indices], "text": texts, "choices": choices}
    if label is not None:
        cells = zip(indices, batch[label.column], strict=True)
        rows["label"] = [label.read(value, declared, f"{where}, row {index + 1}") for index, value in cells]
    return rows


def _encode_batch(batch: dict[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
    encoded = tokenizer(*_sequences(batch), truncation=True, max_length=max_length)
    count = len(batch["choices"][0])
    rows: dict[str, list] = {
        name: [cells[at : at + count] for at in range(0, len(cells), count)] for name, cells in encoded.items()
    }
    rows["length"] = [max(map(len, choices)) for choices in rows["input_ids"]]
    return rows


def _sequences(batch: dict[str, list]) -> tuple[list[str], list[str]]:
    """Contexts and choices, a row a choice."""
    texts = [text for text, choices in zip(batch["text"], batch["choices"], strict=True) for _ in choices]
    return texts, [choice for choices in batch["choices"] for choice in choices]
