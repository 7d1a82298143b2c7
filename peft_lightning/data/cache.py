"""What the cache of `datasets` finds results again by: the content of files, options, and the code that made them."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from datasets import Dataset, Features
from filelock import FileLock

from peft_lightning.errors import UserError

Rows = Iterator[dict[str, Any]]


def cached_map(table: Dataset, function: Callable[..., dict[str, Any]], **options: Any) -> Dataset:
    """`Dataset.map` in batches, computed by one process, while others wait, and then read from the cache by all.

    The result is found again if nothing has changed of the table, the options, among them the tokenizer, and the code:
    `datasets` by itself tells functions by their names, and so would read what an earlier version of them has made.

    Args:
        table: Rows.
        function: Of a module, not a method, as those of a DataModule change with its trainer.
        options: Those of `Dataset.map`.
    """
    code = _code_digest(function, *options.get("fn_kwargs", {}).values())
    with _alone_with(table):
        return table.map(partial(_map_batch, function, code), batched=True, **options)


def cached_rows(
    generator: Callable[..., Rows], options: Mapping[str, Any], files: Iterable[Path], features: Features
) -> Dataset:
    """A table of generated rows, computed once while the content of the files, the options and the code stay the same.

    Args:
        generator: Of a module.
        options: What it is called with.
        files: What it reads.
        features: The columns.
    """
    stamp = f"{content_digest(files)}-{_code_digest(generator)}"
    arguments = {"generator": generator, "stamp": stamp, "options": dict(options)}
    return Dataset.from_generator(_generate, features=features, gen_kwargs=arguments)


def content_digest(files: Iterable[Path]) -> str:
    """SHA-256 of the content of files, whatever their names and times; they are read in pieces.

    Raises:
        UserError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"File {path} cannot be read ({error.strerror}); give one that can.") from error
    return digest.hexdigest()


def _code_digest(*values: Any) -> str:
    """Tells versions of data/ and tasks/, of the files of functions among the values, and of what makes tokens."""
    functions = [getattr(value, "func", value) for value in values]
    defined = {Path(inspect.getfile(function)) for function in functions if inspect.isfunction(function)}
    package = Path(__file__).parents[1]
    own = [path for part in ("data", "tasks") for path in (package / part).glob("*.py")]
    files = {*own, *(path for path in defined if path.is_file())}
    return "-".join([content_digest(sorted(files)), transformers.__version__, tokenizers.__version__])


def _alone_with(table: Dataset) -> AbstractContextManager:
    """Keeps other processes, as those of other nodes, from computing what is about to be in the cache."""
    files = table.cache_files
    return FileLock(f"{files[0]['filename']}.lock") if files else nullcontext()


def _map_batch(function: Callable[..., dict[str, Any]], code: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    return function(*arguments, **options)


def _generate(generator: Callable[..., Rows], stamp: str, options: dict[str, Any]) -> Rows:
    yield from generator(**options)
