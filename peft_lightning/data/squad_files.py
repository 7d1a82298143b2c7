"""SQuAD's own JSON files: articles of paragraphs of questions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from peft_lightning.data.cache import Rows
from peft_lightning.data.faults import half_character
from peft_lightning.data.readers import generated_table
from peft_lightning.errors import UserError

# As on the Hub.
FEATURES = Features(
    {
        "id": Value("string"),
        "title": Value("string"),
        "context": Value("string"),
        "question": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)
_OFFICIAL = {"train": "train-v{}.json", "validation": "dev-v{}.json"}
_STEMS = {"train": ("train",), "validation": ("dev", "valid")}
_KINDS = {str: "a text", int: "a number", list: "a list", dict: "an object"}


def squad_files(directory: Path, version: str) -> dict[str, Path]:
    """The publisher's files in a directory, by split; JSON files of other names count if they hold `train` or `dev`.

    Args:
        directory: Where to look.
        version: `1.1` or `2.0`.

    Raises:
        UserError: Several files may be meant.
    """
    found = {}
    for split, name in _OFFICIAL.items():
        official = directory / name.format(version)
        files = [path for path in sorted(directory.glob("*.json")) if any(stem in path.stem for stem in _STEMS[split])]
        if official.is_file():
            found[split] = official
        elif len(files) > 1:
            raise UserError(
                f"{' and '.join(str(path) for path in files)} may all be the {split} split of SQuAD {version}; keep "
                f"one of them in the directory, or call it {official.name}."
            )
        elif files:
            found[split] = files[0]
    return found


def read_squad(path: Path) -> Dataset:
    """The questions of a file of version 1.1 or 2.0, one a row, with the columns of the Hub, in the file's order.

    Raises:
        UserError: The file cannot be read, is no JSON, or lacks something; articles, paragraphs and questions are
            counted from 1.
    """
    return generated_table(str(path), _questions, {"path": str(path)}, [path], FEATURES)


def _questions(path: str) -> Rows:
    count = 0
    for article, in_article in _numbered(_parsed(Path(path)), "data", path, "article"):
        for paragraph, in_paragraph in _numbered(article, "paragraphs", in_article, "paragraph"):
            context = _field(paragraph, "context", str, in_paragraph)
            for question, where in _numbered(paragraph, "qas", in_paragraph, "question"):
                count += 1
                answers = [
                    (_field(answer, "text", str, place), _field(answer, "answer_start", int, place))
                    for answer, place in _numbered(question, "answers", where, "answer")
                ]
                yield {
                    "id": _field(question, "id", str, where),
                    "title": str(article.get("title", "")),
                    "context": context,
                    "question": _field(question, "question", str, where),
                    "answers": {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]},
                }
    if not count:
        raise UserError(f"{path} holds no question; give a file with at least one.")


def _numbered(node: Any, name: str, where: str, kind: str) -> Iterator[tuple[Any, str]]:
    """The entries of a list in an object, each with what to call it in messages."""
    for number, entry in enumerate(_field(node, name, list, where), start=1):
        yield entry, f"{where}, {kind} {number}"


def _field(node: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(node, dict) or name not in node:
        raise UserError(f"{where}: the field '{name}' is missing; add it, as SQuAD's own files have it.")
    if not isinstance(node[name], kind) or isinstance(node[name], bool):
        raise UserError(f"{where}: the field '{name}' holds {node[name]!r:.80}, not {_KINDS[kind]}; correct it.")
    if kind is int and not -(2**31) <= node[name] < 2**31:
        raise UserError(
            f"{where}: the field '{name}' holds {node[name]}, where no context has a character; correct it."
        )
    if kind is str and (half := half_character(node[name])):
        raise UserError(f"{where}: the field '{name}' holds half a character ({half}); correct it.")
    return node[name]


def _parsed(path: Path) -> Any:
    try:
        return json.loads(_bytes(path).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: this is no JSON ({error.msg}, column {error.colno}); "
            "give the file as SQuAD publishes it."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); give the file as SQuAD publishes it.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"File {path} cannot be read ({error.strerror}); give one that can.") from error
