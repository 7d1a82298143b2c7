"""Parallel files: one sentence a line, line n of the one file beside line n of the other."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from peft_lightning.data.files import read_file
from peft_lightning.errors import UserError


def read_parallel(directory: Path, split: str, languages: Sequence[str]) -> Dataset | None:
    """The files `SPLIT.LANGUAGE` of a directory as one table with a column a language; None if there are none.

    Raises:
        UserError: A file is missing, not UTF-8, or has another number of lines than the others.
    """
    paths = {language: directory / f"{split}.{language}" for language in languages}
    missing = [path for path in paths.values() if not path.is_file()]
    if len(missing) == len(paths):
        return None
    if missing:
        there = next(path for path in paths.values() if path not in missing)
        raise UserError(f"{there} is there and {missing[0]} is not; give one file a language.")
    tables = {
        language: read_file(path, kind="text").rename_column("text", language) for language, path in paths.items()
    }
    counts = {language: len(table) for language, table in tables.items()}
    if len(set(counts.values())) > 1:
        found = " and ".join(f"{paths[language]} has {count} lines" for language, count in counts.items())
        raise UserError(f"{found}; give files in which the same line is the same sentence.")
    return concatenate_datasets(list(tables.values()), axis=1)
