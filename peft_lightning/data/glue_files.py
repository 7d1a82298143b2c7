"""The files of GLUE's own download, with their quirks."""

from pathlib import Path

import numpy as np
from datasets import Dataset
from lightning.pytorch.utilities import rank_zero_warn

from peft_lightning.data.faults import check_lines, check_utf8
from peft_lightning.data.files import read_file
from peft_lightning.data.glue_tasks import GLUE_TASKS
from peft_lightning.data.readers import Delimited, read_delimited
from peft_lightning.data.rows import ROW_OF_FILE
from peft_lightning.errors import UserError

_SPLITS = {
    "train": "train",
    "dev": "validation",
    "dev_matched": "validation_matched",
    "dev_mismatched": "validation_mismatched",
    "test": "test",
    "test_matched": "test_matched",
    "test_mismatched": "test_mismatched",
}
_PARAPHRASES = "msr_paraphrase_train.txt"
_PARAPHRASE_COLUMNS = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
# Where the diagnostic set lies in the downloads that there have been.
_DIAGNOSTIC = ("AX/AX.tsv", "AX/diagnostic.tsv", "diagnostic/diagnostic.tsv", "diagnostic.tsv")


def glue_files(source: str, task: str) -> dict[str, Dataset] | None:
    """The splits of a task that a directory holds as TSV files; None if it holds none.

    - CoLA's training and development files have no header.
    - MRPC may also be there as its publisher's two `msr_paraphrase_*.txt` and GLUE's `dev_ids.tsv`.
    - QQP has rows that lack fields; as in the Hub's copy they are left out, but of the test split none may be.
    - MNLI brings the diagnostic set along.

    Args:
        source: GLUE's directory, or that of the task.
        task: A key of `GLUE_TASKS`.

    Raises:
        UserError: A file is wrong; the message names the line.
    """
    paths = glue_paths(source, task)
    if "train" in paths and paths["train"].name == _PARAPHRASES:
        return _paraphrases(paths["train"].parent)
    return {split: _read(path, task) for split, path in paths.items()} or None


def glue_paths(source: str, task: str) -> dict[str, Path]:
    """The files of a task, by split; empty if a directory holds none.

    Args:
        source: GLUE's directory, or that of the task.
        task: A key of `GLUE_TASKS`.
    """
    directory = Path(source) / GLUE_TASKS[task].folder
    directory = directory if directory.is_dir() else Path(source)
    if task == "mrpc" and (directory / _PARAPHRASES).is_file():
        test = {"test": directory / "msr_paraphrase_test.txt"}
        return {"train": directory / _PARAPHRASES, "validation": directory / _PARAPHRASES} | test
    found = {split: directory / f"{stem}.tsv" for stem, split in _SPLITS.items()}
    found = {split: path for split, path in found.items() if path.is_file()}
    diagnostic = _diagnostic(Path(source), directory) if task == "mnli" and found else None
    return found | ({"ax": diagnostic} if diagnostic else {})


def _diagnostic(*directories: Path) -> Path | None:
    paths = (directory / name for directory in directories for name in _DIAGNOSTIC)
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path, task: str) -> Dataset:
    columns = GLUE_TASKS[task].columns if path.stem in ("train", "dev") else None
    may_lack = task == "qqp" and path.stem != "test"
    short = check_lines(path, "\t", fields=len(columns) if columns else None, may_lack=may_lack)
    table = read_file(path, column_names=columns, ragged=True)
    if short:
        first = next(iter(short.values()))
        rank_zero_warn(f"{path}: {len(short)} rows lack fields and are left out, the first of them in line {first}.")
        table = _chosen(table, ~np.isin(np.arange(1, len(table) + 1), list(short)))
    return table


def _chosen(table: Dataset, chosen: np.ndarray) -> Dataset:
    """Some rows of a file, with their numbers there."""
    return table.add_column(ROW_OF_FILE, np.arange(1, len(table) + 1)).select(np.flatnonzero(chosen))


def _paraphrases(directory: Path) -> dict[str, Dataset]:
    """MRPC as GLUE makes it: rows whose pair of ids is in `dev_ids.tsv` are the development set."""
    ids = directory / "dev_ids.tsv"
    if not ids.is_file():
        raise UserError(
            f"{directory} holds msr_paraphrase_train.txt but no dev_ids.tsv, GLUE's list of the rows for development; "
            "put it there."
        )
    check_utf8(ids)
    development = {tuple(line.split("\t")) for line in ids.read_text(encoding="utf-8-sig").splitlines()}
    train = _txt(directory / _PARAPHRASES)
    chosen = np.array([pair in development for pair in zip(train["#1 ID"], train["#2 ID"], strict=True)])
    if chosen.all() or not chosen.any():
        found = "all rows" if chosen.all() else "no row"
        raise UserError(
            f"{ids} lists the pairs of ids of {found} of {_PARAPHRASES}; give GLUE's list, two ids of that file a line "
            "with a tab between them."
        )
    tables = {"train": _chosen(train, ~chosen), "validation": _chosen(train, chosen)}
    test = directory / "msr_paraphrase_test.txt"
    return tables | ({"test": _txt(test)} if test.is_file() else {})


def _txt(path: Path) -> Dataset:
    check_lines(path, "\t")
    return read_delimited(path, Delimited("\t", quoted=False), _PARAPHRASE_COLUMNS)
