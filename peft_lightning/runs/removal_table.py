"""The table of a layer removal: every metric of the intact model and without each span of layers."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from peft_lightning.errors import UserError
from peft_lightning.runs.directory import write_text

Change = Literal["relative", "absolute"]


def removal_path(directory: Path, split: str, layer_norms: bool = False) -> Path:
    """`layer_removal.csv`, with `_test` for another split than validation and `_layer_norms` where these go too."""
    other_split = "" if split == "validation" else f"_{split}"
    return directory / f"layer_removal{other_split}{'_layer_norms' if layer_norms else ''}.csv"


def record_path(table: Path) -> Path:
    """The file beside a table that says of what it is.

    It holds `checkpoint`, the SHA-256 of the weights, and `of_the_run`: whether these are the run's own, on all its
    data.
    """
    return table.with_suffix(".json")


def read_record(table: Path) -> dict[str, Any]:
    """What is said there; nothing if nobody does."""
    try:
        content = json.loads(record_path(table).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class RemovalRow:
    """One metric without one span of layers.

    Args:
        first: Number of the first layer whose adaptation is removed, from 0; None for the intact model.
        last: Number of the last one.
        metric: Name of the metric.
        value: Its value; over several runs the mean.
        absolute_change: `value - intact`; over several runs the mean of theirs.
        relative_change: `(value - intact) / |intact|`, a fraction; not a number where the intact model has 0.
        relative_error: Standard error of the relative change over the runs (ddof 1); not a number for one run.
        runs: Number of runs.
    """

    first: int | None
    last: int | None
    metric: str
    value: float
    absolute_change: float
    relative_change: float
    relative_error: float = math.nan
    runs: int = 1


def rows_of(intact: Mapping[str, float], spans: Mapping[tuple[int, int], Mapping[str, float]]) -> list[RemovalRow]:
    """The table of one run.

    Args:
        intact: The metrics of the intact model.
        spans: The metrics without each span (first, last).
    """
    rows = [RemovalRow(None, None, metric, value, 0.0, 0.0) for metric, value in intact.items()]
    for (first, last), metrics in spans.items():
        for metric, value in metrics.items():
            change = value - intact[metric]
            relative = change / abs(intact[metric]) if intact[metric] else math.nan
            rows.append(RemovalRow(first, last, metric, value, change, relative))
    return rows


def mean_rows(tables: Sequence[Sequence[RemovalRow]]) -> list[RemovalRow]:
    """The mean over several runs, with the standard error of the relative change.

    Raises:
        UserError: The runs have other layers or metrics.
    """
    keys = [[(row.first, row.last, row.metric) for row in table] for table in tables]
    if any(other != keys[0] for other in keys):
        raise UserError("The runs cannot be averaged: their models have other numbers of layers, or other metrics.")
    return [_mean(rows) for rows in zip(*tables, strict=True)]


def write_rows(path: Path, rows: Sequence[RemovalRow]) -> None:
    """Writes the table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(RemovalRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[RemovalRow]:
    """Reads what `write_rows` has written.

    Raises:
        UserError: The file is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_row(cells) for cells in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it, and evaluate the run again.") from error


def _row(cells: Mapping[str, str]) -> RemovalRow:
    first, last = (int(cells[name]) if cells[name] else None for name in ("first", "last"))
    value, absolute, relative, error = (float(cells[field.name]) for field in fields(RemovalRow)[3:7])
    return RemovalRow(first, last, cells["metric"], value, absolute, relative, error, int(cells["runs"]))


def _mean(rows: Sequence[RemovalRow]) -> RemovalRow:
    columns = np.array([(row.value, row.absolute_change, row.relative_change) for row in rows])
    value, absolute, relative = columns.mean(axis=0).tolist()
    error = float(columns[:, 2].std(ddof=1)) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
    return RemovalRow(rows[0].first, rows[0].last, rows[0].metric, value, absolute, relative, error, len(rows))
