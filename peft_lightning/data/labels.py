"""What the column of a label may hold, and what its cells mean."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Value

from peft_lightning.errors import UserError

UNLABELLED = "; that is how unlabelled rows are marked, which can only be predicted"
# 0.5 and 3., but neither 3 nor a date or a version of three numbers.
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class ClassColumn:
    """A column of classes.

    Args:
        column: Its name in the published table.
        names: The classes in the order of their numbers.
        values: What a cell may hold, as text -> number of the class.
        by_option: Whether an option says which classes there are.
    """

    column: str
    names: Sequence[str]
    values: Mapping[str, int]
    by_option: bool = False

    @property
    def feature(self) -> ClassLabel:
        """The type of what is read."""
        return ClassLabel(names=list(self.names))

    def read(self, value: Any, declared: Sequence[str] | None, where: str) -> int:
        """The number of the class in one cell.

        Args:
            value: The cell.
            declared: The names that the dataset declares for numbers in it, if it does.
            where: File and row, for the message.

        Raises:
            UserError: It is none of the classes.
        """
        known = declared is not None and isinstance(value, int) and 0 <= value < len(declared)
        name = declared[value] if declared is not None and known else label_text(value)
        if name not in self.values:
            unlabelled = UNLABELLED if name == "-1" else ""
            advice = ", or declare the label with --data.labels" if self.by_option else ""
            raise UserError(
                f"{where}: column '{self.column}' holds {value!r}, which is not one of the labels "
                f"{list(self.names)}{unlabelled}; correct the row{advice}."
            )
        return self.values[name]


@dataclass(frozen=True)
class ScoreColumn:
    """A column of numbers that are to be predicted.

    Args:
        column: Its name in the published table.
        least: The lowest number that there can be.
        most: The highest.
    """

    column: str
    least: float
    most: float

    @property
    def feature(self) -> Value:
        """The type of what is read."""
        return Value("float32")

    def read(self, value: Any, declared: Sequence[str] | None, where: str) -> float:
        """The number in one cell.

        Args:
            value: The cell.
            declared: Not used.
            where: File and row, for the message.

        Raises:
            UserError: It is no number between the two.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not self.least <= number <= self.most:
            unlabelled = UNLABELLED if number == -1 else ""
            raise UserError(
                f"{where}: column '{self.column}' holds {value!r}, which is no number from {self.least:g} to "
                f"{self.most:g}{unlabelled}; correct the row."
            )
        return number


def found_labels(cells: Iterable[Any], where: str, column: str) -> list[str]:
    """All labels that a column holds, numbers in their order before words.

    Raises:
        UserError: There is none, or a cell is a number with a fraction, as scores are, or the -1 of unlabelled rows.
    """
    found = set()
    for row, cell in enumerate(cells, start=1):
        label = "" if cell is None else label_text(cell)
        if label not in found and _FRACTION.fullmatch(label):
            raise UserError(
                f"{where}, row {row}: column '{column}' holds {cell!r}, a number with a fraction, which is no class; "
                "choose another column with --data.label_column, or declare all labels with --data.labels."
            )
        if label == "-1":
            raise UserError(
                f"{where}, row {row}: column '{column}' holds {cell!r}{UNLABELLED}; remove such rows, or, "
                "if it is a class, declare all labels with --data.labels."
            )
        found.add(label)
    if not found - {""}:
        raise UserError(
            f"{where}: column '{column}' is empty in every row; give labels, or choose another column with "
            "--data.label_column."
        )
    return sorted(found - {""}, key=_numbers_first)


def _numbers_first(label: str) -> tuple[bool, int, str]:
    """Sorts 2 before 10 and numbers before words."""
    try:
        return (False, int(label), label)
    except ValueError:
        return (True, 0, label)


def label_text(value: Any) -> str:
    """A label as its file writes it, without the blanks around it that nobody sees."""
    return str(value).strip()
