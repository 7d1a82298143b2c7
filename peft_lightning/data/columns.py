"""Files of the CoNLL shared tasks: a word a line, in columns."""

import re
from pathlib import Path

from datasets import Dataset, Features, List, Value

from peft_lightning.data.cache import Rows
from peft_lightning.data.readers import generated_table
from peft_lightning.errors import UserError
from peft_lightning.tasks.chunks import is_tag

DOCUMENT = "-DOCSTART-"
_FEATURES = {"tokens": List(Value("string")), "tags": List(Value("string")), "line": Value("int64")}
_NAMES = {
    "train": ("train.txt", "eng.train"),
    "validation": ("valid.txt", "eng.testa", "validation.txt", "dev.txt"),
    "test": ("test.txt", "eng.testb"),
}


def published_files(directory: Path) -> dict[str, Path]:
    """The files in a directory that are named as those of the shared task, by split."""
    found = {
        split: [directory / name for name in names if (directory / name).is_file()] for split, names in _NAMES.items()
    }
    for split, paths in found.items():
        if len(paths) > 1:
            raise UserError(f"{paths[0]} and {paths[1]} are both the {split} split; keep one of them.")
    return {split: paths[0] for split, paths in found.items() if paths}


def read_columns(path: Path) -> Dataset:
    """One file, memory-mapped from the cache of `datasets`.

    Returns:
        A row a sentence: `tokens`, the first column; `tags`, the last; `line`, the number of its first line.

    Raises:
        UserError: A line has one column or a tag that is none; there is no sentence; the file is not UTF-8.
    """
    content = path.read_bytes()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line} is not UTF-8; save the file in that encoding.") from error
    return generated_table(str(path), _sentences, {"path": str(path)}, [path], Features(_FEATURES))


def _sentences(path: str) -> Rows:
    words: list[list[str]] = []
    start, count = 0, 0
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate([*file, ""], start=1):
            columns = re.split(r"[ \t]+", line.strip(" \t\r\n"))
            if columns[0] and columns[0] != DOCUMENT:
                if len(columns) < 2:
                    raise UserError(
                        f"{path}, line {number} has one column, {columns[0]!r}; give at least a word and its tag, with "
                        "blanks between them."
                    )
                if not is_tag(columns[-1]):
                    raise UserError(
                        f"{path}, line {number}: the last column holds {columns[-1]!r}, which is no tag; give O, "
                        "B-TYPE or I-TYPE."
                    )
                start = start if words else number
                words.append([columns[0], columns[-1]])
            elif words:
                yield {"tokens": [word for word, _ in words], "tags": [tag for _, tag in words], "line": start}
                words, count = [], count + 1
    if not count:
        raise UserError(f"File {path} holds no sentences; give a word and its tag a line.")
