"""Tables from files and from the Hub, with every fault named."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError

from peft_lightning.errors import UserError

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text"}
SPLITS = ("train", "validation", "test")
_SPLIT_STEMS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}


def read_file(path: Path, column_names: Sequence[str] | None = None) -> Dataset:
    """One CSV, TSV, JSON lines, Parquet or text file, memory-mapped from the cache of `datasets`.

    A text file has one column, `text`, and a row a line.

    Args:
        path: The file; its ending says the format.
        column_names: The columns of a CSV file that has no header.

    Raises:
        UserError: The file is missing, empty, of another format, or cannot be parsed.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path} is of no known format; give a file ending in {', '.join(FORMATS)}.")
    if not path.is_file():
        raise UserError(f"File {path} does not exist; give the path of a file that does.")
    empty = UserError(f"File {path} is empty; give a file with at least one row.")
    if not path.stat().st_size:
        raise empty
    try:
        options = _csv_options(path, column_names) if FORMATS[path.suffix] == "csv" else {}
        builder = load_dataset_builder(FORMATS[path.suffix], data_files=str(path), **options)
        builder.download_and_prepare()
        if not builder.info.splits["train"].num_examples:
            raise empty
        return builder.as_dataset(split="train")
    except UserError:
        raise
    except Exception as error:
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        raise UserError(f"File {path} cannot be read: {_first_line(reason)}") from error


def read_source(source: str, revision: str | None = None) -> dict[str, Dataset]:
    """The splits of a Hub dataset or of a directory.

    A directory holds one file a split (`train.csv`, `validation.jsonl`, `test.parquet`; also `valid` and `dev`), or is
    laid out as on the Hub.

    Raises:
        UserError: There is no such dataset or directory, it cannot be reached, or holds no splits.
    """
    directory = Path(source)
    if directory.is_dir():
        files = split_files(directory)
        if files:
            return {split: read_file(path) for split, path in files.items()}
    try:
        loaded = load_dataset(source, revision=revision)
    except Exception as error:
        raise UserError(
            f"Data '{source}' cannot be loaded ({_first_line(error)}); give a file, a local directory with one file a "
            "split, or a Hub id that is reachable or cached."
        ) from error
    assert isinstance(loaded, DatasetDict)
    return dict(loaded)


def split_files(directory: Path) -> dict[str, Path]:
    """The files in a directory that are named like splits.

    Raises:
        UserError: Two files are named like the same split.
    """
    found: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        split = _SPLIT_STEMS.get(path.stem)
        if path.suffix in FORMATS and split:
            if split in found:
                raise UserError(f"{found[split]} and {path} are both the {split} split; keep one of them.")
            found[split] = path
    return found


def label_names(table: Dataset, column: str) -> list[str] | None:
    """The names that a Hub dataset declares for its labels, if it does."""
    feature = table.features.get(column)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def require_column(table: Dataset, column: str, option: str, where: str) -> None:
    """Checks that a column is there.

    Raises:
        UserError: It is not; the message lists the columns that are.
    """
    if column not in table.column_names:
        raise UserError(
            f"{where} has no column '{column}'; its columns are {', '.join(table.column_names)}; "
            f"choose one with {option}."
        )


def stratified_split(table: Dataset, sizes: Mapping[str, float | int], column: str, seed: int) -> dict[str, Dataset]:
    """Splits off parts that keep the proportions of the labels.

    Args:
        table: Rows with integer labels.
        sizes: Name of each part to split off -> fraction of `table`, or number of rows.
        column: The label column, a `ClassLabel`.
        seed: Seed of the split.

    Returns:
        The parts, and what is left as `train`; each in the order of `table`.

    Raises:
        UserError: A part or the rest would have fewer rows than there are labels.
    """
    parts, rest, total = {}, table, len(table)
    for name, size in sizes.items():
        count = size if isinstance(size, int) else round(size * total)
        try:
            both = rest.train_test_split(count, stratify_by_column=column, seed=seed)
        except ValueError as error:
            raise UserError(
                f"A {name} split of {count} rows cannot be taken from {len(rest)} rows so that every label is in both "
                f"({error}); give more rows, or separate files for the splits."
            ) from error
        parts[name], rest = both["test"], both["train"]
    return {"train": rest, **parts}


def _csv_options(path: Path, column_names: Sequence[str] | None) -> dict[str, Any]:
    """Options under which text stays text: a review that reads "NA" is not missing, and the label "01" no number."""
    delimiter = "\t" if path.suffix == ".tsv" else ","
    names = list(column_names or [])
    if not names:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=delimiter))
        if len(set(names)) < len(names):
            raise UserError(f"{path} has two columns of one name among {', '.join(names)}; rename one.")
    features = Features({name: Value("string") for name in names})
    header = {"column_names": names, "header": None} if column_names else {}
    return {"delimiter": delimiter, "features": features, "keep_default_na": False, **header}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
