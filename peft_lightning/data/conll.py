"""CoNLL-2003: names of persons, places, organisations and others in news (Tjong Kim Sang and De Meulder 2003)."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, List, Value
from lightning.pytorch.utilities import rank_zero_warn
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from peft_lightning.data.base import Benchmark
from peft_lightning.data.cache import cached_map
from peft_lightning.data.columns import published_files, read_columns
from peft_lightning.data.files import CONVERTED, read_source, source_files
from peft_lightning.data.lengths import of_words
from peft_lightning.data.words import check_words, encode_words, padded_words
from peft_lightning.errors import UserError
from peft_lightning.tasks.chunks import OUTSIDE

TAG_COLUMNS = ("ner_tags", "tags")


class CoNLL(Benchmark):
    """Sentences whose words have tags in IOB1 or BIO; precision, recall and F1 of entities.

    Tags are trained and shown in BIO, whatever the file has; the entities are the same. `predict` writes beside
    `predictions.jsonl` a file `predictions.conll` with word, true and predicted tag, which the script conlleval reads.

    Args:
        source: Hub id of a dataset with the columns `tokens` and `ner_tags` or `tags`; a directory laid out like one;
            one with a JSON lines file a split; or one with the publisher's files (`train.txt`, `valid.txt`, `test.txt`,
            or `eng.train`, `eng.testa`, `eng.testb`): a line a word, columns separated by blanks, the word first and
            the tag last, an empty line behind each sentence, lines with -DOCSTART- left out.
        revision: Branch, tag or commit on the Hub; by default the Hub's own conversion to Parquet, as the repository of
            CoNLL-2003 holds a script, which `datasets` no longer runs.
        label_column: Column of the tags; by default `ner_tags` or `tags`, whichever is there.
        labels: The tags in the order of their numbers; by default those that the dataset declares, or else O and both
            tags of every type that the training rows hold, sorted.
        kwargs: Arguments of `Benchmark`.
    """

    def __init__(
        self,
        source: str = "eriktks/conll2003",
        revision: str | None = CONVERTED,
        label_column: str | None = None,
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(source=source, revision=revision, **kwargs)
        self.label_column = label_column
        self.declared_labels = labels

    @property
    def task_description(self) -> dict[str, Any]:
        """Token classification."""
        return {
            "type": "token_classification",
            "labels": self.labels,
            "max_length": self.max_length,
            "monitor": "f1",
            "mode": "max",
        }

    @property
    def files(self) -> dict[str, Path]:
        """The publisher's files, or others that are named like splits."""
        return published_files(Path(self.source)) or source_files(self.source)

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The publisher's files, or what the Hub has."""
        files = published_files(Path(self.source))
        if files:
            return {split: read_columns(path) for split, path in files.items()}
        return read_source(self.source, self.revision)

    @cached_property
    def labels(self) -> list[str]:
        """The tags, in the order of their numbers."""
        if self.declared_labels:
            return list(self.declared_labels)
        split = "train" if "train" in self.raw else next(iter(self.raw))
        table, column = self.raw[split], self._tag_column(split)
        declared = _declared(table, column)
        if declared:
            return declared
        batches = table.select_columns(column).iter(batch_size=10_000)
        tags = {tag for batch in batches for row in batch[column] for tag in row or () if isinstance(tag, str)}
        found = {tag[2:] for tag in tags - {OUTSIDE}}
        return [OUTSIDE, *(f"{position}-{kind}" for kind in sorted(found) for position in "BI")]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer; byte-level ones put a blank before every word, as they see words in a text."""
        tokenizer = super().tokenizer
        if not tokenizer.is_fast:
            raise UserError(
                f"The tokenizer of backbone '{self.backbone}' does not say which word a token belongs to; choose a "
                "backbone with a tokenizer.json."
            )
        first: Any = tokenizer.backend_tokenizer.pre_tokenizer
        steps: list[Any] = list(first) if isinstance(first, pre_tokenizers.Sequence) else [first]  # type: ignore[call-overload]
        for step in steps:
            if isinstance(step, pre_tokenizers.ByteLevel):
                step.add_prefix_space = True
        return tokenizer

    def check(self, split: str) -> Dataset:
        """Rows of `tokens`, the words, and `tags`, the numbers of their tags in BIO."""
        table, where, column = self.raw[split], self.where(split), self._tag_column(split)
        features = {"row": Value("int64"), "tokens": List(Value("string")), "tags": List(ClassLabel(names=self.labels))}
        return cached_map(
            table,
            check_words,
            with_indices=True,
            remove_columns=table.column_names,
            features=Features(features),
            desc=f"Checking {where}",
            fn_kwargs={"where": where, "column": column, "names": self.labels, "declared": _declared(table, column)},
        )

    def encode(self, table: Dataset, split: str) -> Dataset:
        """Tokens, and where the words begin among them; says how many words are lost."""
        encoded = cached_map(
            table,
            encode_words,
            remove_columns=["row", "tokens"],
            desc=f"Tokenising {self.source} ({split})",
            fn_kwargs={"tokenizer": self.tokenizer, "max_length": self.max_length},
        )
        batches = encoded.select_columns("words").iter(batch_size=10_000)
        lost = [row.count(-1) for batch in batches for row in batch["words"]]
        if any(lost):
            rank_zero_warn(
                f"{self.source} ({split}): {sum(lost)} words in {sum(map(bool, lost))} sentences have no token of "
                f"their own, as they are behind --data.max_length {self.max_length} or unknown to the tokenizer; "
                "training leaves them out, and evaluation counts them as predicted O."
            )
        return encoded

    @property
    def measure(self) -> Callable[[dict[str, list]], dict[str, list[int]]]:
        """All words of a sentence."""
        return partial(of_words, tokenizer=self.tokenizer)

    def collator(self) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Pads tokens and words."""
        return partial(padded_words, tokenizer=self.tokenizer)

    def example(self, split: str, index: int) -> dict[str, Any]:
        """Number, words, and their true tags."""
        row = super().example(split, index)
        true = [self.labels[tag] for tag in row.pop("tags")]
        return {**row, "true": true}

    def prediction_files(self, name: str) -> dict[str, Callable[[Sequence[dict[str, Any]]], str]]:
        """A file that conlleval reads: `word true predicted`, a line a word."""
        return {"predictions.conll": _as_columns}

    def _tag_column(self, split: str) -> str:
        table = self.raw[split]
        wanted = [self.label_column] if self.label_column else TAG_COLUMNS
        found = [column for column in wanted if column in table.column_names]
        if not found or "tokens" not in table.column_names:
            missing = " or ".join(wanted) if not found else "tokens"
            raise UserError(
                f"{self.where(split)} has no column {missing}; its columns are {', '.join(table.column_names)}; "
                "give lists of words as tokens, and choose their tags with --data.label_column."
            )
        return found[0]


def _as_columns(predictions: Sequence[dict[str, Any]]) -> str:
    sentences = (zip(row["tokens"], row["true"], row["tags"], strict=True) for row in predictions)
    return "\n".join("".join(f"{' '.join(word)}\n" for word in words) for words in sentences)


def _declared(table: Dataset, column: str) -> list[str] | None:
    """The tags that a dataset declares for numbers."""
    inner = getattr(table.features[column], "feature", None)
    return list(inner.names) if isinstance(inner, ClassLabel) else None
