"""Tables from files whose format is known beforehand, with file, row and column of every fault."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError
from datasets.utils import logging as datasets_logging

from peft_lightning.data.cache import Rows, cached_rows
from peft_lightning.data.faults import holds_bad_bytes, json_rows
from peft_lightning.errors import UserError


@dataclass(frozen=True)
class Delimited:
    """How a file of rows is written.

    Args:
        delimiter: What stands between fields.
        quoted: Whether quotes hold fields together; otherwise they are ordinary characters.
        encoding: Name of the encoding, of files that are not UTF-8.
        header: Names of the columns where the file itself does not say them.
    """

    delimiter: str = ","
    quoted: bool = True
    encoding: str = "utf-8"
    header: tuple[str, ...] = ()


def read_delimited(path: Path, layout: Delimited, columns: Sequence[str]) -> Dataset:
    """Some columns of a file, as text, memory-mapped from the cache of `datasets`.

    Raises:
        UserError: The file is missing or empty, a column is missing, or a row has too few or too many fields or is not
            in the encoding; rows are counted from 1 without the header.
    """
    features = Features({column: Value("string") for column in columns})
    return _table(path, _delimited_rows, features, layout=layout, columns=tuple(columns))


def read_json_lines(path: Path, columns: Mapping[str, str]) -> Dataset:
    """Some columns of a file of JSON objects, one a line, memory-mapped from the cache of `datasets`.

    Args:
        path: The file.
        columns: Name -> type: `string`, `int64`, or `label`, any single value, which becomes a text: true is `True`.

    Raises:
        UserError: The file is missing or empty, or a row is no object, not UTF-8, lacks a column or holds another type.
    """
    features = Features({column: Value("string" if kind == "label" else kind) for column, kind in columns.items()})
    return _table(path, _json_rows, features, columns=tuple(columns.items()))


def read_folders(directories: Sequence[Path], labels: Sequence[str], encoding: str, pattern: str = "*") -> Dataset:
    """Texts of one file each in a folder a label, as `text`, `label` and `file`, in the order of folders and names.

    Args:
        directories: Where the folders are.
        labels: Names of the folders that are read; each has to be in every directory.
        encoding: Name of the encoding.
        pattern: Which files of a folder are read.

    Raises:
        UserError: A folder is missing or empty, or a file is empty or not in the encoding.
    """
    files: list[tuple[str, str]] = []
    for directory in directories:
        for label in labels:
            found = sorted(path for path in (directory / label).glob(pattern) if path.is_file())
            if not found:
                raise UserError(f"Folder {directory / label} does not exist or has no files; unpack the whole archive.")
            files += [(label, str(path)) for path in found]
    features = Features({name: Value("string") for name in ("text", "label", "file")})
    paths = [Path(name) for _, name in files]
    options = {"files": files, "encoding": encoding}
    return generated_table(str(directories[0]), _folder_rows, options, paths, features)


def require_columns(table: Dataset, columns: Sequence[str], where: str, wanted: str) -> Dataset:
    """The table, once all columns are known to be there.

    Raises:
        UserError: A column is missing; the message says what data are `wanted`.
    """
    for column in columns:
        if column not in table.column_names:
            raise UserError(
                f"{where} has no column '{column}'; its columns are {', '.join(table.column_names)}; give {wanted}."
            )
    return table


def _table(path: Path, rows: Callable[..., Rows], features: Features, **options: Any) -> Dataset:
    if not path.is_file():
        raise UserError(f"File {path} does not exist; give the path of a file that does.")
    return generated_table(str(path), rows, {"path": str(path), **options}, [path], features)


def generated_table(
    where: str, rows: Callable[..., Rows], options: Mapping[str, Any], files: Sequence[Path], features: Features
) -> Dataset:
    """A table of generated rows, memory-mapped from the cache of `datasets`.

    Args:
        where: What to call the source in messages.
        rows: The generator, a function of a module.
        options: What it is called with.
        files: What it reads.
        features: The columns.

    Raises:
        UserError: The generator raises one, or gives what is not of these columns, or no rows.
    """
    verbosity = datasets_logging.get_verbosity()
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)  # what it would say is in the error that it raises
    try:
        return cached_rows(rows, options, files, features)
    except DatasetGenerationError as error:
        # A fresh one: the cause of an error, raised while that is handled, would be its own context.
        reason = error.__cause__ or error
        sentence = str(reason) if isinstance(reason, UserError) else f"{where} cannot be read: {reason}"
        raise UserError(sentence) from error
    except ValueError as error:  # of a table without rows `datasets` says that it corresponds to no data
        raise UserError(f"File {where} is empty; give a file with at least one row.") from error
    finally:
        datasets_logging.set_verbosity(verbosity)


def _delimited_rows(path: str, layout: Delimited, columns: tuple[str, ...]) -> Rows:
    # Copies of old files have often been converted since, and any bytes at all are valid latin-1.
    encoding = "utf-8-sig" if layout.encoding == "utf-8" or _is_utf8(path) else layout.encoding
    row = 0
    # Bytes that are not in the encoding are kept as lone surrogates, so that row and column can be told.
    with open(path, encoding=encoding, errors="surrogateescape", newline="") as file:
        reader = csv.reader(
            file, delimiter=layout.delimiter, quoting=csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
        )
        records = (record for record in reader if record)
        try:
            names = list(layout.header) or [name.strip() for name in next(records, [])]
            places = {column: names.index(column) for column in columns if column in names}
            for column in columns:
                if column not in places and names:
                    raise UserError(
                        f"File {path} has no column '{column}'; its columns are {', '.join(names)}; give the "
                        "publisher's file."
                    )
            for row, record in enumerate(records, start=1):
                if len(record) != len(names):
                    raise UserError(
                        f"{path}, row {row} has {len(record)} fields and should have {len(names)} "
                        f"({', '.join(names)}); correct the row."
                    )
                cells = {column: record[place] for column, place in places.items()}
                for column, cell in cells.items():
                    if holds_bad_bytes(cell):
                        raise UserError(
                            f"{path}, row {row}: column '{column}' is not {layout.encoding}; correct the row, or "
                            "convert the file."
                        )
                yield cells
        except csv.Error as error:
            raise UserError(f"{path}, row {row + 1} cannot be read: {error}; correct the row.") from error


def _json_rows(path: str, columns: tuple[tuple[str, str], ...]) -> Rows:
    for cells, where in json_rows(Path(path)):
        yield {column: _json_cell(cells, column, kind, where) for column, kind in columns}


def _json_cell(cells: dict[str, Any], column: str, kind: str, where: str) -> Any:
    if column not in cells:
        raise UserError(f"{where} has no column '{column}'; its columns are {', '.join(cells)}; give the whole row.")
    cell = cells[column]
    if kind == "string" and isinstance(cell, str):
        return cell
    if kind == "label" and not isinstance(cell, dict | list):
        return "" if cell is None else str(cell)
    if kind == "int64" and isinstance(cell, int) and not isinstance(cell, bool) and -(2**63) <= cell < 2**63:
        return cell
    wanted = {"string": "text", "int64": "whole number", "label": "label"}[kind]
    raise UserError(f"{where}: column '{column}' holds {cell!r}, which is no {wanted}; correct the row.")


def _folder_rows(files: list[tuple[str, str]], encoding: str) -> Rows:
    for row, (label, name) in enumerate(files, start=1):
        try:
            text = Path(name).read_text(encoding=encoding)
        except UnicodeDecodeError as error:
            raise UserError(f"File {name} (row {row}) is not {encoding}; correct it, or convert it.") from error
        if not text.strip():
            raise UserError(f"File {name} (row {row}) is empty; correct it or remove it.")
        yield {"text": text, "label": label, "file": name}


def _is_utf8(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            while file.read(2**20):
                pass
    except UnicodeDecodeError:
        return False
    return True
