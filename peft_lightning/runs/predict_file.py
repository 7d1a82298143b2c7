"""Predictions for a file of texts."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from peft_lightning.data.files import read_file, require_column
from peft_lightning.data.rows import check_texts
from peft_lightning.errors import UserError
from peft_lightning.runs.classes import named_class
from peft_lightning.runs.directory import RunDirectory
from peft_lightning.runs.loading import load_run
from peft_lightning.storage.writing import partial_path, sync, sync_directory


def predict_file(
    run: RunDirectory,
    source: Path,
    target: Path,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    batch_size: int = 32,
    device: str | None = None,
    overwrite: bool = False,
) -> int:
    """Writes one JSON line a text: `text`, perhaps `text_pair`, and what the task reads from the pipeline.

    That is `label` and `scores` by label, or `score`, or `prediction`, the text that was written, from
    `load_run(RUN).pipeline()`.

    Args:
        run: A finished run.
        source: `.txt` with one text a line, or `.csv`, `.tsv`, `.jsonl` or `.parquet` with a column of text.
        target: The file to write; it appears only when it is complete.
        text_column: The column of the text; by default the one that the run was trained on.
        text_pair_column: The column of the second text; by default the one that the run was trained on, if any.
        batch_size: Texts that are computed at once.
        device: For example `cuda:0`; by default a GPU if there is one.
        overwrite: Whether to replace a target that exists.

    Returns:
        The number of texts.

    Raises:
        UserError: The source cannot be read, holds an empty text, or single texts for a model of pairs; the target
            exists or cannot be written; there is no such device.
    """
    if batch_size < 1:
        raise UserError(f"--batch_size is {batch_size}; give at least 1.")
    if target.is_dir():
        raise UserError(f"{target} is a directory; give the path of a file as --output.")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; choose another --output or add --overwrite.")
    run.trained_checkpoint()
    config = run.read_config()
    columns = trained_columns(config["data"])
    if source.suffix.lower() == ".txt":
        if "text_pair" in columns:
            raise UserError(
                f"The run was trained on pairs of texts, and {source} has single ones; give a file of pairs."
            )
        columns = {"text": "text"}
    columns |= {"text": text_column} if text_column else {}
    columns |= {"text_pair": text_pair_column} if text_pair_column else {}
    texts = _read(source, columns)
    device = _checked_device(device)
    partial = _claim(target)
    try:
        named_class(config["model"]["class_path"])
        method = load_run(run.path)
        outputs = method.pipeline(device)((row for row in texts), batch_size=batch_size, top_k=None)
        with partial.open("w", encoding="utf-8") as file:
            for row, output in zip(
                texts, tqdm(outputs, total=len(texts), desc="Predicting", unit=" texts"), strict=True
            ):
                file.write(json.dumps({**row, **method.task.read(output)}, ensure_ascii=False) + "\n")
        sync(partial)
        os.replace(partial, target)
        sync_directory(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    return len(texts)


def trained_columns(data: dict[str, Any]) -> dict[str, str]:
    """The text columns that the run's DataModule reads.

    Raises:
        UserError: It reads something else than texts, or pairs of them.
    """
    datamodule = named_class(data["class_path"])(**data.get("init_args", {}))
    columns = getattr(datamodule, "text_columns", None)
    # WiC's pairs come with a word.
    if not isinstance(columns, Mapping) or columns.keys() - {"text", "text_pair"}:
        raise UserError(
            f"The run was trained on {type(datamodule).__name__}, whose examples are no single texts; give files of "
            "that format as predict RUN --data.source DIRECTORY."
        )
    return dict(columns)


def _read(source: Path, columns: dict[str, str]) -> list[dict[str, str]]:
    table = read_file(source)
    for role, column in columns.items():
        require_column(table, column, f"--{role}_column", str(source))
        check_texts(table[column], str(source), column)
    return [dict(zip(columns, row, strict=True)) for row in zip(*(table[c] for c in columns.values()), strict=True)]


def _checked_device(device: str | None) -> str:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device '{device}' cannot be used: {str(error).splitlines()[0]}") from error
    return device


def _claim(target: Path) -> Path:
    """An empty file beside the target, which shows before anything is computed that it can be written."""
    partial = partial_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}); choose another --output.") from error
    return partial
