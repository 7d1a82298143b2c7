"""Tables from files and from the Hub, with every fault named."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Value,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
)
from datasets import config as datasets_config
from datasets.exceptions import DatasetGenerationError
from datasets.utils import logging as datasets_logging

from peft_lightning.data.cache import content_digest
from peft_lightning.data.faults import check_records, check_utf8, json_rows
from peft_lightning.errors import UserError

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text"}
# Where the Hub keeps its own conversion to Parquet of a dataset that may be a script, which `datasets` no longer runs.
CONVERTED = "refs/convert/parquet"
_SPLIT_STEMS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def read_file(
    path: Path, column_names: Sequence[str] | None = None, kind: str | None = None, ragged: bool = False
) -> Dataset:
    """One CSV, TSV, JSON lines, Parquet or text file, memory-mapped from the cache of `datasets`.

    In a TSV file quotes are ordinary characters, as in the files of GLUE. A text file has one column, `text`, and a row
    a line.

    Args:
        path: The file; its ending says the format.
        column_names: The columns of a CSV file that has no header.
        kind: The format where the ending does not say it: `csv`, `json`, `parquet` or `text`.
        ragged: Whether rows of a CSV or TSV file may lack fields, which are then empty.

    Raises:
        UserError: The file is missing, empty, of another format or encoding, or a row has a wrong number of fields.
    """
    kind = kind or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} is of no known format; give a file ending in {', '.join(FORMATS)}.")
    if not path.is_file():
        raise UserError(f"File {path} does not exist; give the path of a file that does.")
    if not path.stat().st_size:
        raise _empty(path)
    verbosity = datasets_logging.get_verbosity()
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)  # what it would say is in the error that it raises
    try:
        return _built(path, kind, column_names, ragged)
    except UserError:
        raise
    except Exception as error:
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        if isinstance(reason, OSError) and reason.filename and Path(reason.filename) != path:
            raise UserError(
                f"File {path} was read, but the cache of datasets cannot be written ({_first_line(reason)}); set "
                "HF_HOME to a directory that can."
            ) from error
        _name_fault(path, kind, column_names)
        raise UserError(f"File {path} cannot be read: {_first_line(reason)}") from error
    finally:
        datasets_logging.set_verbosity(verbosity)


def source_files(source: str, name: str | None = None) -> dict[str, Path]:
    """The files named like splits in a folder `name` of a directory, or in the directory itself; empty if none are.

    Raises:
        UserError: Two files are named like the same split.
    """
    root = Path(source)
    for directory in (root / (name or ""), root):
        if directory.is_dir() and (files := split_files(directory)):
            return files
    return {}


def read_source(source: str, revision: str | None = None, name: str | None = None) -> dict[str, Dataset]:
    """The splits of a Hub dataset or of a directory.

    A directory holds one file a split (`train.csv`, `validation.jsonl`, `test.parquet`; also `valid`, `val` and `dev`),
    itself or in a folder `name`, or is laid out as on the Hub.

    Args:
        source: Hub id or directory.
        revision: Branch, tag or commit on the Hub.
        name: Which configuration of the dataset to read, of several.

    Raises:
        UserError: There is no such dataset or directory, it cannot be reached, or holds no splits.
    """
    files = source_files(source, name)
    if files:
        return {split: read_file(path) for split, path in files.items()}
    try:
        part = _part(source, revision, name) if name else {}
        loaded = load_dataset(source, revision=revision, cache_dir=_cache_of_directory(Path(source), name), **part)
    except Exception as error:
        raise UserError(
            f"Data '{source}' cannot be loaded ({_first_line(error)}); give a file, a local directory with one file a "
            "split, or a Hub id that is reachable or cached."
        ) from error
    assert isinstance(loaded, DatasetDict)
    return dict(loaded)


def _built(path: Path, kind: str, column_names: Sequence[str] | None, ragged: bool) -> Dataset:
    options: dict[str, Any] = {"encoding": "utf-8-sig"} if kind == "text" else {}
    if kind == "csv":
        options = _csv_options(path, column_names)
    # `datasets` itself tells a changed file by its time, which copies keep.
    builder = load_dataset_builder(kind, content_digest([path]), data_files=str(path), **options)
    # What is in the cache was checked. pandas would fill rows up, and pyarrow takes any bytes for text.
    if not Path(builder.cache_dir).is_dir():
        if kind == "csv" and not ragged:
            check_records(path, column_names or (), **_dialect(path))
        elif kind == "json":
            check_utf8(path)
    builder.download_and_prepare()
    if not builder.info.splits["train"].num_examples:
        raise _empty(path)
    return builder.as_dataset(split="train")


def _name_fault(path: Path, kind: str, column_names: Sequence[str] | None) -> None:
    """Raises an error with the row, where it can be found, of a file that could not be read."""
    if kind == "csv":
        check_records(path, column_names or (), **_dialect(path))
    if kind in ("csv", "text"):
        check_utf8(path)
    with path.open("rb") as file:
        one_list = file.read(1_000).lstrip().startswith(b"[")
    if kind == "json" and not one_list:
        for _ in json_rows(path):
            pass


def _dialect(path: Path) -> dict[str, Any]:
    tabs = path.suffix.lower() == ".tsv"
    return {"delimiter": "\t" if tabs else ",", "quoting": csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL}


def _part(source: str, revision: str | None, config: str) -> dict[str, str]:
    """How one configuration is asked for: by its name, or where the names are not written down by its directory."""
    directory = Path(source)
    if not directory.is_dir():
        return {"data_dir" if revision == CONVERTED else "name": config}
    if config in get_dataset_config_names(source):
        return {"name": config}
    return {"data_dir": config} if (directory / config).is_dir() else {}


def _cache_of_directory(directory: Path, config: str | None) -> str | None:
    """Where tables of a directory are cached, by the content of all its files; None for the Hub, which has revisions.

    `datasets` itself tells a changed file by its time, which copies keep.
    """
    if not directory.is_dir():
        return None
    inside = directory / (config or "")
    files = {*directory.glob("*"), *(inside if inside.is_dir() else directory).rglob("*")}
    hidden = {path for path in files if any(part.startswith(".") for part in path.relative_to(directory).parts)}
    digest = content_digest(sorted(path for path in files - hidden if path.is_file()))
    return str(Path(datasets_config.HF_DATASETS_CACHE) / digest)


def split_files(directory: Path) -> dict[str, Path]:
    """The files in a directory that are named like splits.

    Raises:
        UserError: Two files are named like the same split.
    """
    found: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        split = _SPLIT_STEMS.get(path.stem)
        if path.suffix.lower() in FORMATS and split:
            if split in found:
                raise UserError(f"{found[split]} and {path} are both the {split} split; keep one of them.")
            found[split] = path
    return found


def label_names(table: Dataset, column: str) -> list[str] | None:
    """The names that a Hub dataset declares for its labels, if it does."""
    feature = table.features.get(column)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def require_column(table: Dataset, column: str, option: str | None, where: str) -> None:
    """Checks that a column is there.

    Args:
        table: The table.
        column: Name of the column.
        option: Which option chooses the column, if one does.
        where: What to call the table in messages.

    Raises:
        UserError: It is not; the message lists the columns that are.
    """
    if column not in table.column_names:
        advice = f"choose one with {option}" if option else "give the table as it is published"
        raise UserError(f"{where} has no column '{column}'; its columns are {', '.join(table.column_names)}; {advice}.")


def content_hash(table: Dataset) -> str:
    """Sixteen hexadecimal digits of all cells of a table, by which changed data is told."""
    digest = hashlib.sha256("\x1f".join(table.column_names).encode())
    for batch in table.with_format(None).iter(batch_size=10_000):
        for cells in batch.values():
            digest.update("\x1f".join(map(str, cells)).encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def _csv_options(path: Path, column_names: Sequence[str] | None) -> dict[str, Any]:
    """Options under which text stays text: a review that reads "NA" is not missing, and the label "01" no number."""
    dialect = _dialect(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = (record for record in csv.reader(file, **dialect) if record)
        names = list(column_names or next(records, []))
        # So pandas writes its index.
        indexed = not column_names and names[:1] == [""]
        names = ["index", *names[1:]] if indexed else names
        first = next(records, names)
    if len(set(names)) < len(names) or "" in names:
        raise UserError(
            f"{path} has no usable header: its first line is {', '.join(names)!r}; give each column a name of its own."
        )
    # pandas would take surplus fields of all rows for an index, and shift every column.
    if len(first) > len(names):
        raise UserError(
            f"{path}, row 1 has {len(first)} fields and the header {len(names)}; quote fields that hold a delimiter."
        )
    header = {"column_names": names, "header": 0 if indexed else None} if column_names or indexed else {}
    features = Features({name: Value("string") for name in names})
    return {**dialect, **header, "features": features, "keep_default_na": False}


def _empty(path: Path) -> UserError:
    return UserError(f"File {path} is empty; give a file with at least one row.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
