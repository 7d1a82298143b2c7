"""SQuAD: questions whose answers are spans of paragraphs of Wikipedia.

Version 1.1 has 87,599 questions for training and 10,570 for development (Rajpurkar et al. 2016, arXiv:1606.05250);
version 2.0 has 130,319 and 11,873, a third and a half of them without answer (Rajpurkar et al. 2018, arXiv:1806.03822).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from peft_lightning.data.files import read_source
from peft_lightning.data.held_out import HeldOut
from peft_lightning.data.squad_files import read_squad, squad_files
from peft_lightning.data.squad_rows import checked_questions
from peft_lightning.data.windows import WindowCollator, Windowing, training_windows, whole_questions
from peft_lightning.errors import UserError

HUB_IDS: Mapping[str, str] = {"1.1": "rajpurkar/squad", "2.0": "rajpurkar/squad_v2"}


class SQuAD(HeldOut):
    """Extractive question answering; exact match and F1 as the official evaluators count them, in percent.

    A context that is too long is cut into windows that share `doc_stride` tokens: the meaning of the word in
    transformers' `run_qa`, where in BERT's script it is the step from window to window. Training shuffles windows;
    evaluation keeps all windows of a question in one batch and answers the question there.

    The publisher keeps the test split to itself. `predict` answers the development questions, and beside
    `predictions.jsonl` writes `predictions.json` and `nbest_predictions.json` in the official formats; for version 2.0
    also `null_odds.json`, and `best_span_predictions.json`, in which every question has an answer: from these two
    evaluate-v2.0.py finds the best thresholds.

    Args:
        version: `1.1`, or `2.0` with questions that have no answer.
        source: Hub id, by default that of the version, or a local directory with the publisher's files
            (`train-v1.1.json`, `dev-v1.1.json`), or one laid out as on the Hub.
        max_length: Number of tokens of a window, with question and special tokens.
        doc_stride: Tokens that a window shares with the next one.
        max_query_length: Tokens after which a question is cut.
        n_best_size: Number of spans that are compared and shown.
        max_answer_length: The most tokens of an answer.
        null_score_diff_threshold: In version 2.0 the best span is given unless the score of "no answer" is higher by
            more than this.
        kwargs: Arguments of `HeldOut`.

    Raises:
        UserError: A size is too small, or windows are to share more than they have.
    """

    def __init__(
        self,
        version: Literal["1.1", "2.0"] = "1.1",
        source: str | None = None,
        max_length: int = 384,
        doc_stride: int = 128,
        max_query_length: int = 64,
        n_best_size: int = 20,
        max_answer_length: int = 30,
        null_score_diff_threshold: float = 0.0,
        **kwargs: Any,
    ):
        if version not in HUB_IDS:
            raise UserError(f"version is '{version}'; give 1.1 or 2.0.")
        super().__init__(source=source or HUB_IDS[version], max_length=max_length, **kwargs)
        for option, value, least in (
            ("doc_stride", doc_stride, 0),
            ("max_query_length", max_query_length, 1),
            ("n_best_size", n_best_size, 1),
            ("max_answer_length", max_answer_length, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{option} is {value}; give at least {least}.")
        if doc_stride >= max_length:
            raise UserError(f"doc_stride is {doc_stride} and max_length {max_length}; windows cannot share so much.")
        self.version = version
        self.doc_stride = doc_stride
        self.max_query_length = max_query_length
        self.n_best_size = n_best_size
        self.max_answer_length = max_answer_length
        self.null_score_diff_threshold = null_score_diff_threshold

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The publisher's files, or what the Hub has."""
        if self.files:
            return {split: read_squad(path) for split, path in self.files.items()}
        return read_source(self.source, self.revision)

    @property
    def files(self) -> dict[str, Path]:
        """The publisher's files."""
        directory = Path(self.source)
        return squad_files(directory, self.version) if directory.is_dir() else {}

    def published(self, kind: str) -> dict[str, str]:
        """The development questions, for the publisher keeps the test."""
        return {"": "validation"}

    @property
    def task_description(self) -> dict[str, Any]:
        """Extractive question answering; F1 chooses the best checkpoint."""
        return {
            "type": "question_answering",
            "max_length": self.max_length,
            "no_answer": self.version == "2.0",
            # So many fit in training, which keeps gradients beside.
            "windows_at_once": self.batch_size,
            "n_best_size": self.n_best_size,
            "max_answer_length": self.max_answer_length,
            "null_score_diff_threshold": self.null_score_diff_threshold,
            "monitor": "f1",
            "mode": "max",
        }

    def id_column(self, split: str) -> str:
        """Answers are known by their questions' ids."""
        return "id"

    def check(self, split: str) -> Dataset:
        """Questions whose answers are where they are said to be."""
        return checked_questions(self.raw[split], self._where(split), self.version)

    def encode(self, table: Dataset, split: str) -> Dataset:
        """Windows for training, whole questions for evaluation."""
        encoded = training_windows if split == "train" else whole_questions
        return encoded(table, self._windowing, self._where(split))

    def rows_of_training(self, indices: Sequence[int]) -> list[int]:
        """Training rows are windows, so the windows of each question are counted, once."""
        return self._rows_of_windows[list(indices)].tolist()

    @property
    def _windowing(self) -> Windowing:
        return Windowing(self.tokenizer, self.max_length, self.doc_stride, self.max_query_length)

    @cached_property
    def _rows_of_windows(self) -> np.ndarray:
        questions = whole_questions(self.table("train"), self._windowing, self._where("train"))
        return np.repeat(questions["row"][:], [len(windows) for windows in questions["input_ids"]])

    def collator(self) -> WindowCollator:
        """Pads windows, and lays those of questions one behind the other."""
        return WindowCollator(self.tokenizer)

    def example(self, split: str, index: int) -> dict[str, Any]:
        """Number, question, context, and the gold answers."""
        row = self.table(split)[index]
        return {"row": row["row"], "question": row["question"], "context": row["context"], "true": row["answers"]}

    def prediction_files(self, name: str) -> dict[str, Callable[[Sequence[dict[str, Any]]], str]]:
        """The official formats of predictions, n-best lists and null odds."""
        files = {"predictions.json": "answer", "nbest_predictions.json": "nbest"}
        if self.version == "2.0":
            files |= {"null_odds.json": "null_odds", "best_span_predictions.json": "best"}
        return {name: _ById(column) for name, column in files.items()}

    def _where(self, split: str) -> str:
        return self.where("train" if split == "held_out" else split)


class _ById:
    """Makes a JSON object of predictions: id -> one column; of spans without `start`, which official files lack."""

    def __init__(self, column: str):
        self.column = column

    def __call__(self, predictions: Sequence[dict[str, Any]]) -> str:
        content = {prediction["id"]: _official(prediction[self.column]) for prediction in predictions}
        return json.dumps(content, indent=4, ensure_ascii=False) + "\n"


def _official(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [{name: entry for name, entry in span.items() if name != "start"} for span in value]
