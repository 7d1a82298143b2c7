"""SuperGLUE's tasks of classification (Wang et al. 2019, arXiv:1905.00537)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from peft_lightning.data.cache import cached_map
from peft_lightning.data.files import CONVERTED, read_source
from peft_lightning.data.held_out import HeldOut
from peft_lightning.data.labels import ClassColumn
from peft_lightning.data.lengths import of_texts
from peft_lightning.data.readers import read_json_lines, require_columns
from peft_lightning.data.text import TextDataModule
from peft_lightning.errors import UserError

HUB = "aps/super_glue"
FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


@dataclass(frozen=True)
class SuperGLUETask:
    """One task.

    Args:
        directory: What the publisher calls it.
        columns: `text`, `text_pair` and further roles -> column.
        labels: The labels in the order of their numbers on the Hub.
    """

    directory: str
    columns: Mapping[str, str]
    labels: tuple[str, ...]


TASKS: dict[str, SuperGLUETask] = {
    "boolq": SuperGLUETask("BoolQ", {"text": "question", "text_pair": "passage"}, ("False", "True")),
    "cb": SuperGLUETask(
        "CB", {"text": "premise", "text_pair": "hypothesis"}, ("entailment", "contradiction", "neutral")
    ),
    "rte": SuperGLUETask("RTE", {"text": "premise", "text_pair": "hypothesis"}, ("entailment", "not_entailment")),
    "wic": SuperGLUETask("WiC", {"text": "sentence1", "text_pair": "sentence2", "word": "word"}, ("False", "True")),
}


class SuperGLUE(HeldOut, TextDataModule):
    """A pair of texts, two or three classes; accuracy, and for CB also the unweighted mean of F1 over the classes.

    BoolQ's pair is question and passage. The publisher keeps the labels of the test split.

    Args:
        task: `boolq`, `cb`, `rte` or `wic`.
        source: Hub id; the publisher's unpacked archive, with `BoolQ/train.jsonl` and so on, or one task's directory of
            it; or a directory laid out as on the Hub.
        revision: Branch, tag or commit on the Hub; by default the Hub's own conversion to Parquet, as the repository
            holds a script, which `datasets` no longer runs.
        max_length: Number of tokens after which a pair is cut; of the longer text first.
        wic_wording: How WiC names its word, as the official code of P-Tuning v2 does (tasks/superglue/dataset.py):
            before both sentences of a pair, `word: sentence1` and `word: sentence2` (template 1, for BERT); or in a
            `question` behind them, all in one sequence, `sentence1 sentence2 Does word have the same meaning in both
            sentences?` (template 0, the default of arguments.py, with which run_script/run_wic_roberta.sh runs).
        kwargs: Arguments of `HeldOut`.

    Raises:
        UserError: There is no such task.
    """

    label_column = "label"

    def __init__(
        self,
        task: str,
        source: str = HUB,
        revision: str | None = CONVERTED,
        max_length: int = 128,
        wic_wording: Literal["word", "question"] = "word",
        **kwargs: Any,
    ):
        if task == "copa":
            raise UserError("task is 'copa', which is multiple choice; use --data=COPA.")
        if task not in TASKS:
            raise UserError(f"task is '{task}'; give one of {', '.join(TASKS)}, or use --data=COPA for copa.")
        super().__init__(source=source, revision=revision, max_length=max_length, **kwargs)
        self.task = task
        self.facts = TASKS[task]
        self.text_columns = self.facts.columns
        self.wic_wording = wic_wording

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of the Hub."""
        return list(self.facts.labels)

    @property
    def label_values(self) -> dict[str, int]:
        """Names or numbers."""
        return super().label_values | {str(number): number for number in range(len(self.labels))}

    def label_of(self, split: str) -> ClassColumn | None:
        """None for the test split, whose labels are not published."""
        return None if split == "test" else ClassColumn(self.label_column, self.labels, self.label_values)

    def id_column(self, split: str) -> str:
        """SuperGLUE's number of the row, by which its server knows predictions."""
        return "idx"

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The publisher's files, or what the Hub has."""
        directory = self._published_directory()
        if directory is not None:
            return {split: self._published_split(directory, split) for split in self._published_splits(directory)}
        inside = Path(self.source) / self.task
        tables = (
            read_source(str(inside))
            if inside.is_dir() and not (Path(self.source) / "README.md").is_file()
            else read_source(self.source, self.revision, self.task)
        )
        wanted = f"data laid out like {HUB}"
        columns = [*self.text_columns.values(), "idx"]
        return {
            split: require_columns(
                table,
                columns if split == "test" else [*columns, self.label_column],
                f"'{self.source}' ({self.task}, {split})",
                wanted,
            )
            for split, table in tables.items()
        }

    @property
    def files(self) -> dict[str, Path]:
        """The publisher's files."""
        directory = self._published_directory()
        return {split: directory / name for split, name in FILES.items()} if directory else {}

    def encode(self, table: Dataset, split: str) -> Dataset:
        """Tokens and label; of WiC with the word."""
        if self._compose:
            columns = list(self.text_columns)
            table = cached_map(table, self._compose, remove_columns=columns, desc=f"Naming the word ({split})")
        return super().encode(table, split)

    @property
    def measure(self) -> Callable[[dict[str, list]], dict[str, list[int]]]:
        """A pair, of WiC with the word."""
        columns = ("text", "text_pair")
        return partial(of_texts, tokenizer=self.tokenizer, columns=columns, compose=self._compose)

    def example(self, split: str, index: int) -> dict[str, Any]:
        """As of every text, and `idx`, the publisher's number, which files of predictions to be submitted need."""
        shown = super().example(split, index)
        table = self.raw["train" if split == "held_out" else split]
        return {"idx": table[shown["row"] - 1]["idx"], **shown}

    @property
    def _compose(self) -> Callable[[Mapping[str, list]], dict[str, list]] | None:
        if "word" not in self.text_columns:
            return None
        return word_before_both if self.wic_wording == "word" else word_in_question

    def _published_directory(self) -> Path | None:
        """Where the publisher's files of this task are, if the source holds them."""
        source = Path(self.source)
        if (source / self.facts.directory / FILES["train"]).is_file():
            return source / self.facts.directory
        # The Hub calls no file val.jsonl.
        inside = (source / FILES["validation"]).is_file() or source.name == self.facts.directory
        return source if source.is_dir() and inside else None

    def _published_splits(self, directory: Path) -> list[str]:
        for split in ("train", "validation"):
            if not (directory / FILES[split]).is_file():
                raise UserError(
                    f"File {directory / FILES[split]} does not exist; give the unpacked archive of SuperGLUE's "
                    f"{self.facts.directory}."
                )
        return [split for split, name in FILES.items() if (directory / name).is_file()]

    def _published_split(self, directory: Path, split: str) -> Dataset:
        label = {} if split == "test" else {self.label_column: "label"}
        columns = dict.fromkeys(self.text_columns.values(), "string") | label | {"idx": "int64"}
        return read_json_lines(directory / FILES[split], columns)


def word_before_both(batch: Mapping[str, list]) -> dict[str, list]:
    """WiC's sentences as a pair, each behind the word."""
    columns = ("text", "text_pair")
    return {
        name: [f"{word}: {text}" for word, text in zip(batch["word"], batch[name], strict=True)] for name in columns
    }


def word_in_question(batch: Mapping[str, list]) -> dict[str, list]:
    """WiC's sentences and a question as one text."""
    rows = zip(batch["text"], batch["text_pair"], batch["word"], strict=True)
    question = "Does {} have the same meaning in both sentences?"
    return {"text": [f"{first} {second} {question.format(word)}" for first, second, word in rows]}
