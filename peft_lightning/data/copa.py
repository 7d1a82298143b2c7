"""COPA: the cause or the effect of what a sentence says, two choices (Roemmele et al. 2011), as in SuperGLUE."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from peft_lightning.data.choices import ChoiceDataModule, Compose
from peft_lightning.data.files import CONVERTED, read_source, source_files
from peft_lightning.errors import UserError

QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
CONJUNCTIONS = {"cause": "because", "effect": "so"}


def copa_questions(batch: Mapping[str, list]) -> tuple[list[str], list[list[str]]]:
    """The premise with a question, and the two choices."""
    return _composed(batch, QUESTIONS)


def copa_conjunctions(batch: Mapping[str, list]) -> tuple[list[str], list[list[str]]]:
    """The premise with a conjunction, and the two choices."""
    return _composed(batch, CONJUNCTIONS)


class COPA(ChoiceDataModule):
    """Which of two sentences is the cause, or the effect: 400 training, 100 validation and 500 unlabelled test rows.

    The metric is accuracy.

    Args:
        source: Hub id; or a directory with SuperGLUE's `train.jsonl`, `val.jsonl` and `test.jsonl` of COPA, or laid out
            as on the Hub.
        revision: Branch, tag or commit on the Hub; by default the Hub's own conversion to Parquet, as the
            repository of SuperGLUE holds a script, which `datasets` no longer runs.
        wording: What stands behind the premise: a `question`, "What was the cause of this?" or "What happened as a
            result?"; or a `conjunction`, "because" or "so", as in the official code of P-Tuning v2.
        kwargs: Arguments of `ChoiceDataModule`.
    """

    text_columns = ["premise", "choice1", "choice2", "question"]
    choices = ["choice1", "choice2"]

    def __init__(
        self,
        source: str = "aps/super_glue",
        revision: str | None = CONVERTED,
        wording: Literal["question", "conjunction"] = "question",
        **kwargs: Any,
    ):
        super().__init__(source=source, revision=revision, **kwargs)
        self.wording = wording

    @property
    def compose(self) -> Compose:  # type: ignore[override]
        """By the wording."""
        return copa_questions if self.wording == "question" else copa_conjunctions

    def id_column(self, split: str) -> str:
        """SuperGLUE's number of the row, by which its server knows predictions."""
        return "idx"

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """SuperGLUE's files, or the configuration `copa` of the Hub's copy."""
        return read_source(self.source, self.revision, "copa")

    @property
    def files(self) -> dict[str, Path]:
        """SuperGLUE's files of the task."""
        return source_files(self.source, "copa")

    def check(self, split: str) -> Dataset:
        """As for all of its kind; the question is one of the two.

        Raises:
            UserError: It is neither.
        """
        table = self.raw[split]
        for row, question in enumerate(table["question"] if "question" in table.column_names else (), start=1):
            if question not in QUESTIONS:
                raise UserError(
                    f"{self.where(split)}, row {row}: column 'question' holds {question!r}, which is neither "
                    "'cause' nor 'effect'; correct the row."
                )
        return super().check(split)


def _composed(batch: Mapping[str, list], behind: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    rows = zip(batch["premise"], batch["question"], strict=True)
    choices = zip(batch["choice1"], batch["choice2"], strict=True)
    return [f"{premise} {behind[question]}" for premise, question in rows], [list(pair) for pair in choices]
