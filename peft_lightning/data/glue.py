"""GLUE: nine tasks of understanding single sentences or pairs (Wang et al. 2018, arXiv:1804.07461)."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from peft_lightning.data.files import read_source
from peft_lightning.data.glue_files import glue_files, glue_paths
from peft_lightning.data.glue_submission import SUBMISSION_FILES, submission_table
from peft_lightning.data.glue_tasks import GLUE_TASKS
from peft_lightning.data.held_out import HeldOut
from peft_lightning.data.labels import ClassColumn, ScoreColumn
from peft_lightning.data.text import TextDataModule


class GLUE(HeldOut, TextDataModule):
    """One task of GLUE.

    Reported are Matthews for CoLA, F1 (and accuracy) for MRPC and QQP, Spearman (and Pearson) for STS-B, accuracy for
    the others, on MNLI for the matched and, with `mismatched_` before the names, the mismatched split.

    Labels of the test splits are not published: beside `predictions.jsonl` `predict` writes the table of the task that
    GLUE's server takes, as `CoLA.tsv`, and `glue-submission` puts those of several runs together.

    Args:
        task: Which one.
        source: Hub id, or a local directory: GLUE's own (`CoLA/train.tsv`, ...), the task's alone, or one laid out as
            on the Hub.
        kwargs: Arguments of `HeldOut`.
    """

    label_column = "label"

    def __init__(
        self,
        task: Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"],
        source: str = "nyu-mll/glue",
        **kwargs: Any,
    ):
        super().__init__(source=source, **kwargs)
        self.task = task
        self.facts = GLUE_TASKS[task]
        self.may_be_empty = self.facts.may_be_empty

    @cached_property
    def _files(self) -> dict[str, Dataset] | None:
        return glue_files(self.source, self.task)

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """GLUE's own files, or what the Hub has."""
        if self._files is not None:
            return self._files
        tables = read_source(self.source, self.revision, self.task)
        if self.task == "mnli":
            tables |= {"ax": read_source(self.source, self.revision, "ax")["test"]}
        return tables

    @property
    def files(self) -> dict[str, Path]:
        """GLUE's own files."""
        return glue_paths(self.source, self.task)

    @property
    def text_columns(self) -> dict[str, str]:  # type: ignore[override]
        """Its columns in these files."""
        columns = self.facts.texts if self._files is not None else self.facts.hub_texts
        return dict(zip(("text", "text_pair"), columns, strict=False))

    @property
    def labels(self) -> list[str]:
        """As on the Hub; none for STS-B."""
        return list(self.facts.labels or [])

    @property
    def label_values(self) -> dict[str, int]:
        """Names or numbers."""
        return super().label_values | {str(number): number for number in range(len(self.labels))}

    def label_of(self, split: str) -> ClassColumn | ScoreColumn | None:
        """No label in the test splits and the diagnostic set; scores from 0 to 5 for STS-B."""
        if split.startswith(("test", "ax")):
            return None
        column = self.facts.label if self._files is not None else "label"
        if self.facts.labels is None:
            return ScoreColumn(column, 0.0, 5.0)
        return ClassColumn(column, self.labels, self.label_values)

    def id_column(self, split: str) -> str | None:
        """GLUE's number of a row, by which its server knows predictions; it has other names in QQP and on the Hub."""
        return next((name for name in ("index", "id", "idx") if name in self.raw[split].column_names), None)

    def example(self, split: str, index: int) -> dict[str, Any]:
        """As of every text, and of rows to be predicted `index`, GLUE's number, if they have one."""
        shown, column = super().example(split, index), self.id_column(split)
        if self.label_of(split) is not None or column is None:
            return shown
        return {"index": self.raw[split][shown["row"] - 1][column], **shown}

    def prediction_files(self, name: str) -> dict[str, Callable[[Sequence[dict[str, Any]]], str]]:
        """The table that GLUE's server takes."""
        return {SUBMISSION_FILES[self.task][name]: partial(submission_table, facts=self.facts)}

    @property
    def task_description(self) -> dict[str, Any]:
        """Classification, or regression for STS-B."""
        shared = {"max_length": self.max_length, "monitor": self.facts.monitor, "mode": "max"}
        shared["also"] = [name for name in self.published("validation") if name]
        if self.facts.labels is None:
            return {"type": "regression", **shared}
        return {"type": "classification", "labels": self.labels, **shared}

    def published(self, kind: str) -> dict[str, str]:
        """One split; of MNLI the matched and the mismatched one, and to predict also the diagnostic set."""
        if self.task != "mnli":
            return {"": kind}
        sets = {"": f"{kind}_matched", "mismatched": f"{kind}_mismatched"} | ({"ax": "ax"} if kind == "test" else {})
        return {name: split for name, split in sets.items() if not name or split in self.raw}
