"""The 17 additional text classification tasks of Houlsby et al. 2019 (arXiv:1902.00751, Section 3.3 and Table 3)."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from lightning.pytorch.utilities import rank_zero_warn

from peft_lightning.data.files import read_source
from peft_lightning.data.houlsby17_tasks import HOULSBY17_TASKS
from peft_lightning.data.labels import label_text
from peft_lightning.data.readers import read_delimited, read_folders, require_columns
from peft_lightning.data.rows import checked_rows
from peft_lightning.data.splits import split_with_rare_labels
from peft_lightning.data.text import TextDataModule
from peft_lightning.data.whole_numbers import whole_numbers
from peft_lightning.errors import UserError


class Houlsby17(TextDataModule):
    """One text, 2 to 157 classes; accuracy.

    All published rows are one table, split 80/10/10 by `split_seed` with the proportions of the labels, because the
    paper's own split is not published. Labels of fewer than three rows stay in the training split. Where the numbers of
    rows or classes are not those of the paper's Table 3, a warning says so.

    Args:
        task: `20newsgroups`, `sms_spam`, ...: a key of `HOULSBY17_TASKS`.
        source: The publisher's file, the directory it is in, for 20 newsgroups the unpacked folders; or a Hub id or a
            directory laid out as on the Hub. By default the Hub's copy, where one is known.
        kwargs: Arguments of `TextDataModule`.

    Raises:
        UserError: There is no such task, or no Hub copy is known and `source` is not given.
    """

    def __init__(self, task: str, source: str | None = None, **kwargs: Any):
        if task not in HOULSBY17_TASKS:
            raise UserError(f"task is '{task}'; give one of {', '.join(HOULSBY17_TASKS)}.")
        wanted = HOULSBY17_TASKS[task]
        if source is None:
            if wanted.hub is None:
                raise UserError(
                    f"No copy of {task} on the Hub is known; download {wanted.file} ({wanted.publisher}) and give its "
                    "path as --data.source."
                )
            source = wanted.hub.name
        super().__init__(source=source, **kwargs)
        self.task = task
        self.wanted = wanted
        published = self._published()
        hub = None if published or not wanted.hub else wanted.hub
        self.text_columns = {"text": hub.text if hub else wanted.text}
        self.label_column = hub.label if hub else wanted.label

    @property
    def labels(self) -> list[str]:
        """The names in the publisher's file."""
        return list(self.wanted.labels) or self._found

    @property
    def label_values(self) -> dict[str, int]:
        """The names, and their other spellings."""
        numbers = super().label_values
        return numbers | {other: numbers[name] for other, name in self.wanted.other_spellings.items()}

    @property
    def split_off(self) -> dict[str, float | int]:
        """A tenth each."""
        return {"validation": 0.1, "test": 0.1}

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """All rows as one table."""
        wanted, path, columns = self.wanted, self._published(), [*self.text_columns.values(), self.label_column]
        if path and wanted.layout:
            return {"train": read_delimited(path, wanted.layout, columns)}
        if path:
            return {"train": read_folders(_newsgroup_directories(path), wanted.labels, encoding="latin-1")}
        file = f"{wanted.file} ({wanted.publisher})"
        try:
            tables = read_source(self.source, self.revision).values()
        except UserError as error:
            raise UserError(
                f"'{self.source}' is neither {file}, the file of {self.task}, nor a directory that holds it, nor a "
                "dataset that is reachable or cached; download the file and give its path as --data.source."
            ) from error
        wanted_data = f"{file}, or a copy laid out like {wanted.hub.name}" if wanted.hub else file
        return {
            "train": concatenate_datasets(
                [require_columns(table, columns, f"'{self.source}'", wanted_data) for table in tables]
            )
        }

    def where(self, split: str) -> str:
        """The publisher's file, or the source, and the task."""
        return f"{self._published() or self.source} ({self.task})"

    def check(self, split: str) -> Dataset:
        """Rows of text and label, without those that are no examples."""
        left_out = {
            {self.wanted.text: self.text_columns["text"], self.wanted.label: self.label_column}[column]: cells
            for column, cells in self.wanted.left_out.items()
        }
        return checked_rows(self.raw[split], self.where(split), self.text_columns, self.label_of(split), left_out)

    def divide(self, table: Dataset, sizes: Mapping[str, float | int], where: str) -> dict[str, Dataset]:
        """80/10/10, rounded as in the paper; warns where what comes out differs from it."""
        held_out = len(table) - int(0.8 * len(table))
        exact = {"validation": held_out // 2, "test": held_out - held_out // 2}
        parts = split_with_rare_labels(table, exact, self.split_seed, where)
        found = (len(parts["train"]), exact["validation"], exact["test"])
        classes = len(np.unique(whole_numbers(table, "label")))
        if (found, classes) != (self.wanted.sizes, self.wanted.classes):
            rank_zero_warn(
                f"{where} has {' / '.join(map(str, found))} examples of {classes} labels, and Houlsby et al. had "
                f"{' / '.join(map(str, self.wanted.sizes))} of {self.wanted.classes}: numbers can be compared with "
                "the paper's only with care."
            )
        return parts

    @cached_property
    def _found(self) -> list[str]:
        text = self.text_columns["text"]
        without_text = "" in self.wanted.left_out.get(self.wanted.text, ())
        found = {
            label_text(label or "")
            for batch in self.raw["train"].select_columns([text, self.label_column]).iter(batch_size=10_000)
            for label, cell in zip(batch[self.label_column], batch[text], strict=True)
            if not (without_text and not (cell or "").strip())
        }
        return sorted(found - {"", *self.wanted.left_out.get(self.wanted.label, ())})

    def _published(self) -> Path | None:
        """The publisher's file, or the directory of folders, if the source is it or holds it."""
        path = Path(self.source)
        if self.wanted.layout is None:
            return path if path.is_dir() and _newsgroup_directories(path) else None
        if path.is_dir() and (path / self.wanted.file).is_file():
            return path / self.wanted.file
        return path if path.is_file() else None


def _newsgroup_directories(path: Path) -> list[Path]:
    """Where the folders of the groups are: of the archive by date there are two, for training and for test."""
    within = [path, *sorted(child for child in path.iterdir() if child.is_dir())]
    return [directory for directory in within if (directory / "alt.atheism").is_dir()]
