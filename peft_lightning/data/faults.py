"""What is wrong with a file: where, in which row and column."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from peft_lightning.errors import UserError

_BAD_BYTE = re.compile("[\udc80-\udcff]")
_HALF = re.compile("[\ud800-\udfff]")


def check_lines(path: Path, delimiter: str, fields: int | None = None, may_lack: bool = False) -> dict[int, int]:
    """Checks that every line of a file without quotes is UTF-8, one row, and has the fields that it should have.

    Args:
        path: The file.
        delimiter: Between two fields.
        fields: Their number; by default that of the first line.
        may_lack: Whether a row may have fewer, as the pieces of one that is broken by an end of line have.

    Returns:
        The numbers of the rows that have fewer, from 1 behind the first row -> those of their lines, from 1.

    Raises:
        UserError: A line is wrong.
    """
    mark, short, row = delimiter.encode(), {}, -1
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8."
                ) from error
            # For those who read the rows, a carriage return ends one by itself.
            pieces = [piece for piece in line.splitlines() if piece.strip(b" ")]
            if len(pieces) > 1 and not may_lack:
                raise UserError(
                    f"{path}, line {number}: a carriage return breaks the line at byte {len(pieces[0]) + 1}; "
                    "remove it, or end every line with a line feed."
                )
            for piece in pieces:
                row += 1
                found = piece.count(mark) + 1
                fields = found if fields is None else fields
                if found < fields and may_lack:
                    short[row] = number
                elif found != fields:
                    raise UserError(f"{path}, line {number} has {found} columns instead of {fields}; correct the line.")
    return short


def check_utf8(path: Path) -> None:
    """Checks that every line of a file is UTF-8.

    Raises:
        UserError: A line is not.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, line {number} is not UTF-8; convert the file to UTF-8.") from error


def check_records(path: Path, names: Sequence[str] = (), **dialect: Any) -> None:
    """Checks that every row of a delimited file is UTF-8 and has as many fields as there are columns.

    Behind a row that the standard library cannot read, as one with a field of 131,072 characters, nothing is checked.

    Args:
        path: The file.
        names: Names of the columns; by default those in the first row.
        dialect: Arguments of `csv.reader`.

    Raises:
        UserError: A row is not, or has not.
    """
    # Bytes that are not UTF-8 are kept as lone surrogates, so that row and column can be told.
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file, suppress(csv.Error):
        records = (record for record in csv.reader(file, **dialect) if record)
        names = list(names or next(records, []))
        if any(map(holds_bad_bytes, names)):
            raise UserError(f"{path}: the header is not UTF-8; convert the file to UTF-8.")
        for row, record in enumerate(records, start=1):
            if len(record) != len(names):
                raise UserError(
                    f"{path}, row {row} has {len(record)} fields and should have {len(names)} ({', '.join(names)}); "
                    "correct the row, and quote fields that hold a delimiter."
                )
            for column, cell in zip(names, record, strict=True):
                if holds_bad_bytes(cell):
                    raise UserError(
                        f"{path}, row {row}: column '{column}' is not UTF-8; correct the row, or convert the file."
                    )


def json_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a file of JSON lines, each with what to call it in messages.

    Raises:
        UserError: A line is not UTF-8, no JSON, or no object, or holds half a character.
    """
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, row {row}"
            try:
                cells = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise UserError(f"{where} is not UTF-8; correct the row, or convert the file.") from error
            except json.JSONDecodeError as error:
                raise UserError(f"{where} is not JSON ({error.msg}); give one object a line.") from error
            if not isinstance(cells, dict):
                raise UserError(f"{where} holds {cells!r:.80}, which is no JSON object; give one object a line.")
            for column, cell in cells.items() if b"\\u" in line else ():
                if half := half_character(json.dumps(cell, ensure_ascii=False)):
                    raise UserError(f"{where}: column '{column}' holds half a character ({half}); correct the row.")
            yield cells, where


def half_character(text: str) -> str | None:
    """The first lone surrogate in a text, as JSON writes it; UTF-8 has no bytes for it."""
    found = _HALF.search(text)
    return ascii(found[0])[1:-1] if found else None


def holds_bad_bytes(cell: str) -> bool:
    """Whether a text that was read with `surrogateescape` holds bytes that are not in the encoding."""
    return not cell.isascii() and _BAD_BYTE.search(cell) is not None
