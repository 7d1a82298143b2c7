"""What the column of a label may hold, and what its cells mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Value

from peft_lightning.errors import UserError


@dataclass(frozen=True)
class ClassColumn:
    """A column of classes.

    Args:
        column: Its name in the published table.
        names: The classes in the order of their numbers.
        values: What a cell may hold, as text -> number of the class.
    """

    column: str
    names: Sequence[str]
    values: Mapping[str, int]

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
            unlabelled = "; that is how unlabelled rows are marked, which can only be predicted" if name == "-1" else ""
            raise UserError(
                f"{where}: column '{self.column}' holds {value!r}, which is not one of the labels "
                f"{list(self.names)}{unlabelled}; correct the row, or declare the label."
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
            raise UserError(
                f"{where}: column '{self.column}' holds {value!r}, which is no number from {self.least:g} to "
                f"{self.most:g}; correct the row."
            )
        return number


def label_text(value: Any) -> str:
    """A label as its file writes it, without the blanks around it that nobody sees."""
    return str(value).strip()
