"""Any table of texts and the texts that are to be written for them: summaries, translations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Value
from lightning.pytorch.utilities import rank_zero_warn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from peft_lightning.data.base import Benchmark
from peft_lightning.data.cache import cached_map
from peft_lightning.data.files import FORMATS, read_file, read_source, require_column
from peft_lightning.data.lengths import of_sources_and_targets
from peft_lightning.data.rows import check_texts, is_empty, rows_with_empty_texts
from peft_lightning.errors import UserError
from peft_lightning.tasks.sequence_to_sequence import PADDING


class TextToText(Benchmark):
    """A text for each text: any CSV, TSV, JSON lines or Parquet file with a column of sources and one of targets.

    One file is split 80/10/10 by `split_seed`. Of a directory or Hub dataset the splits are taken as they are; a
    missing validation split is a tenth of the training rows.

    Args:
        source: A file; a directory with a file a split (`train.csv`, `validation.csv`, `test.csv`); or a Hub id.
        source_column: Column of what the model reads.
        target_column: Column of what it is to write.
        source_prefix: What stands before each source, for example `summarize: ` for T5.
        source_language: The code of the source's language, for tokenizers that mark it: `en_XX` for mBART.
        target_language: The same of the target's; `ro_RO`.
        max_length: Number of tokens after which a source is cut.
        max_target_length: Number of tokens after which a target is cut in training and for the loss; metrics compare
            with all of it.
        metrics: `rouge`, `bleu`, `bleu_no_diacritics` (of Romanian), or several of them.
        num_beams: Number of beams when texts are generated, which is in every evaluation.
        max_new_tokens: The most tokens to write; by default `max_target_length`. transformers' `max_length` counts the
            start token too.
        min_new_tokens: The fewest tokens to write.
        length_penalty: Power of the length by which scores of beams are divided.
        no_repeat_ngram_size: Number of tokens that may not come twice in the same order; 0 allows all.
        label_smoothing: Share of the loss that is spread over the whole vocabulary.
        monitor: Metric that chooses the best checkpoint: `loss`, or one that `metrics` gives, for example `rouge2`.
        kwargs: Arguments of `Benchmark`.
    """

    # Whether options say which columns these are.
    columns_by_option = True
    # Whether the publisher's rows without a source are left out of training and kept in evaluation, or refused.
    sources_may_be_empty = False

    def __init__(
        self,
        source: str,
        source_column: str = "source",
        target_column: str = "target",
        source_prefix: str = "",
        source_language: str | None = None,
        target_language: str | None = None,
        max_length: int = 512,
        max_target_length: int = 128,
        metrics: Sequence[str] = ("rouge", "bleu"),
        num_beams: int = 4,
        max_new_tokens: int | None = None,
        min_new_tokens: int = 0,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        label_smoothing: float = 0.0,
        monitor: str = "loss",
        **kwargs: Any,
    ):
        super().__init__(source=source, max_length=max_length, **kwargs)
        self.columns: Mapping[str, str] = {"source_column": source_column, "target_column": target_column}
        self.source_prefix = source_prefix
        self.source_language = source_language
        self.target_language = target_language
        self.max_target_length = max_target_length
        self.monitor = monitor
        self.task_options = {
            "metrics": list(metrics),
            "num_beams": num_beams,
            "max_new_tokens": max_new_tokens,
            "min_new_tokens": min_new_tokens,
            "length_penalty": length_penalty,
            "no_repeat_ngram_size": no_repeat_ngram_size,
            "label_smoothing": label_smoothing,
        }

    @property
    def text_columns(self) -> dict[str, str]:
        """The column that a file of further texts has."""
        return {"text": self.columns["source_column"]}

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The file as one table, or the splits."""
        path = Path(self.source)
        if path.is_file() or path.suffix.lower() in FORMATS:
            return {"train": read_file(path)}
        return read_source(self.source, self.revision)

    @property
    def split_off(self) -> dict[str, float | int]:
        """A tenth for each split that one file, or the dataset, lacks."""
        if Path(self.source).is_file():
            return {"validation": 0.1, "test": 0.1}
        return {} if "validation" in self.raw else {"validation": 0.1}

    @property
    def task_description(self) -> dict[str, Any]:
        """Sequence to sequence."""
        return {
            "type": "sequence_to_sequence",
            "max_length": self.max_length,
            "max_target_length": self.max_target_length,
            "source_prefix": self.source_prefix,
            "source_language": self.source_language,
            **self.task_options,
            **self._first_tokens,
            "monitor": self.monitor,
            "mode": "min" if self.monitor == "loss" else "max",
        }

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer, told the languages if it marks them.

        Raises:
            UserError: It does not know a language.
        """
        tokenizer = super().tokenizer
        if marks_languages(tokenizer):
            for role in ("source_language", "target_language"):
                code = getattr(self, role)
                if code is not None and tokenizer.convert_tokens_to_ids(code) in (None, tokenizer.unk_token_id):
                    raise UserError(
                        f"{role} is '{code}', which the tokenizer of backbone '{self.backbone}' does not know; give "
                        f"one of its codes, as {tokenizer.src_lang}."
                    )
            tokenizer.src_lang = self.source_language or tokenizer.src_lang
            tokenizer.tgt_lang = self.target_language or tokenizer.tgt_lang
        return tokenizer

    @property
    def _first_tokens(self) -> dict[str, int]:
        """Where the target's language is marked: mBART starts from it, mBART-50 writes it first."""
        if self.target_language is None or not marks_languages(self.tokenizer):
            return {}
        language = self.tokenizer.convert_tokens_to_ids(self.target_language)
        first = self.tokenizer(text_target="a")["input_ids"][0]
        return {"forced_bos_token_id" if first == language else "decoder_start_token_id": language}

    def check(self, split: str) -> Dataset:
        """Rows of `text`, the source, and `target`.

        Raises:
            UserError: A column is missing, or a text empty that may not be.
        """
        table, where, source = self.raw[split], self.where(split), self.columns["source_column"]
        left_out = self.sources_may_be_empty and split == "train"
        for option, column in self.columns.items():
            require_column(table, column, f"--data.{option}" if self.columns_by_option else None, where)
        checked = cached_map(
            table,
            _check_batch,
            with_indices=True,
            remove_columns=table.column_names,
            features=Features({"row": Value("int64"), "text": Value("string"), "target": Value("string")}),
            desc=f"Checking {where}",
            fn_kwargs={
                "columns": [(column, self.where_column(split, column)) for column in self.columns.values()],
                "source_may_be_empty": self.sources_may_be_empty,
                "left_out": left_out,
            },
        )
        if self.sources_may_be_empty:
            numbers = set(range(1, len(table) + 1)) - set(checked["row"][:])
            empty = numbers if left_out else set(rows_with_empty_texts(checked, {"text": source}))
            done = "left out of training" if left_out else "evaluated like the others"
            if empty:
                rank_zero_warn(
                    f"{where}: {len(empty)} rows have an empty '{source}', the first of them row {min(empty)}, and are "
                    f"{done}."
                )
        return checked

    def where_column(self, split: str, column: str) -> str:
        """What to call a column's file in messages."""
        return self.where(split)

    def encode(self, table: Dataset, split: str) -> Dataset:
        """Tokens of source and target, the target as `reference`, and the length of the source."""
        return cached_map(
            table,
            _encode_batch,
            remove_columns=table.column_names,
            desc=f"Tokenising {self.source} ({split})",
            fn_kwargs={
                "tokenizer": self.tokenizer,
                "prefix": self.source_prefix,
                "max_length": self.max_length,
                "max_target_length": self.max_target_length,
            },
        )

    @property
    def limits(self) -> dict[str, int]:
        """Sources and targets are cut apart."""
        return {"source": self.max_length, "target": self.max_target_length}

    @property
    def measure(self) -> Callable[[dict[str, list]], dict[str, list[int]]]:
        """Both, the source with its prefix."""
        return partial(of_sources_and_targets, tokenizer=self.tokenizer, prefix=self.source_prefix)

    def collator(self) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Pads sources and targets, each to the longest of the batch."""
        return TextPairCollator(self.tokenizer)

    def example(self, split: str, index: int) -> dict[str, Any]:
        """Number, source and reference."""
        row = super().example(split, index)
        return {"row": row["row"], "text": row["text"], "true": row["target"]}


@dataclass(frozen=True)
class TextPairCollator:
    """Makes a batch of encoded pairs: `labels` are padded with -100, `reference` stays a list of texts.

    Args:
        tokenizer: Pads the sources.
    """

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch."""
        sources = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in rows]
        targets = [torch.tensor(row["labels"]) for row in rows]
        return {
            **self.tokenizer.pad(sources, return_tensors="pt"),
            "labels": pad_sequence(targets, batch_first=True, padding_value=PADDING),
            "reference": [row["reference"] for row in rows],
        }


def marks_languages(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts the language beside a text, as mBART's does."""
    return hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")


def _check_batch(
    batch: dict[str, list],
    indices: list[int],
    columns: list[tuple[str, str]],
    source_may_be_empty: bool,
    left_out: bool,
) -> dict[str, list]:
    (source, source_file), (target, target_file) = columns
    check_texts(batch[source], source_file, source, indices[0] + 1, may_be_empty=source_may_be_empty)
    check_texts(batch[target], target_file, target, indices[0] + 1)
    rows = zip(indices, batch[source], batch[target], strict=True)
    kept = [(index + 1, text or "", written) for index, text, written in rows if not (left_out and is_empty(text))]
    return {name: [row[place] for row in kept] for place, name in enumerate(("row", "text", "target"))}


def _encode_batch(
    batch: dict[str, list], tokenizer: PreTrainedTokenizerBase, prefix: str, max_length: int, max_target_length: int
) -> dict[str, Any]:
    encoded = tokenizer([prefix + text for text in batch["text"]], truncation=True, max_length=max_length)
    targets = tokenizer(text_target=batch["target"], truncation=True, max_length=max_target_length)
    return {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "labels": targets["input_ids"],
        "reference": batch["target"],
        "length": [len(ids) for ids in encoded["input_ids"]],
    }
