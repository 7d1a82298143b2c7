"""GLUE: nine tasks of understanding single sentences or pairs (Wang et al. 2018, arXiv:1804.07461)."""

from functools import cached_property
from typing import Any, Literal

from datasets import Dataset

from peft_lightning.data.files import read_source
from peft_lightning.data.glue_files import glue_files
from peft_lightning.data.glue_tasks import GLUE_TASKS
from peft_lightning.data.labels import ClassColumn, ScoreColumn
from peft_lightning.data.text import TextDataModule
from peft_lightning.errors import UserError


class GLUE(TextDataModule):
    """One task of GLUE.

    Reported are Matthews for CoLA, F1 (and accuracy) for MRPC and QQP, Spearman (and Pearson) for STS-B, accuracy for
    the others, on MNLI for the matched and, with `mismatched_` before the names, the mismatched split.

    Labels of the test splits are not published: `validate` gives the results on the development split that papers call
    dev, `predict` what `glue-submission` sends to the server. With `validation_size` training rows are held out to
    choose the best checkpoint, and `test` evaluates the development split, which then has chosen nothing.

    Args:
        task: Which one.
        source: Hub id, or a local directory: GLUE's own (`CoLA/train.tsv`, ...), the task's alone, or one laid out as
            on the Hub.
        validation_size: Number of training rows to hold out.
        kwargs: Arguments of `Benchmark`.

    Raises:
        UserError: A size is not positive.
    """

    label_column = "label"

    def __init__(
        self,
        task: Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"],
        source: str = "nyu-mll/glue",
        validation_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(source=source, **kwargs)
        if validation_size is not None and validation_size < 1:
            raise UserError(f"validation_size is {validation_size}; give at least 1.")
        self.task = task
        self.validation_size = validation_size
        self.facts = GLUE_TASKS[task]

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

    @property
    def task_description(self) -> dict[str, Any]:
        """Classification, or regression for STS-B."""
        shared = {"max_length": self.max_length, "monitor": self.facts.monitor, "mode": "max"}
        shared["also"] = [name for name in self._published("validation") if name]
        if self.facts.labels is None:
            return {"type": "regression", **shared}
        return {"type": "classification", "labels": self.labels, **shared}

    @property
    def split_off(self) -> dict[str, float | int]:
        """The rows that are held out."""
        return {} if self.validation_size is None else {"held_out": self.validation_size}

    def evaluated(self, stage: str) -> dict[str, str]:
        """Held-out rows, the development split, or the test split and, with MNLI, the diagnostic set.

        Raises:
            UserError: The test split is to be evaluated.
        """
        if stage == "predict":
            return self._published("test") | ({"ax": "ax"} if "ax" in self.raw else {})
        if stage == "validate" and self.validation_size is not None:
            return {"": "held_out"}
        if stage == "test" and self.validation_size is None:
            raise UserError(
                f"GLUE publishes no labels of the test split of {self.task}: validate RUN gives the results on the "
                "development split, predict RUN and glue-submission the files for the server; to choose the best "
                "checkpoint on other rows than those that are reported, train with --data.validation_size."
            )
        return self._published("validation")

    def _published(self, kind: str) -> dict[str, str]:
        if self.task != "mnli":
            return {"": kind}
        sets = {"": f"{kind}_matched", "mismatched": f"{kind}_mismatched"}
        return {name: split for name, split in sets.items() if not name or split in self.raw}
