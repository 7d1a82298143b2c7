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
    tables = {language: _lines(path).rename_column("text", language) for language, path in paths.items()}
    counts = {language: len(table) for language, table in tables.items()}
    if len(set(counts.values())) > 1:
        found = " and ".join(f"{paths[language]} has {count} lines" for language, count in counts.items())
        raise UserError(f"{found}; give files in which the same line is the same sentence.")
    return concatenate_datasets(list(tables.values()), axis=1)


def _lines(path: Path) -> Dataset:
    try:
        return read_file(path, kind="text")
    except UserError as error:
        if isinstance(error.__cause__, UnicodeDecodeError) or isinstance(
            getattr(error.__cause__, "__cause__", None), UnicodeDecodeError
        ):
            raise UserError(f"{path}, line {_undecodable(path)} is not UTF-8; convert the file to UTF-8.") from error
        raise


def _undecodable(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError(f"all lines of {path} are UTF-8")
