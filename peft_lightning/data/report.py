"""What a benchmark holds: sizes, labels and lengths of its splits, as tables and as a figure."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from datasets import ClassLabel

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from peft_lightning.data.base import Benchmark
from peft_lightning.data.whole_numbers import whole_numbers

PERCENTILES = (5, 25, 50, 75, 95, 99, 100)


@dataclass(frozen=True)
class SplitReport:
    """One split, all of whose rows have been checked.

    Args:
        split: Its name.
        rows: Number of examples.
        labels: Number of examples of each label, where there are classes.
        lengths: Number of tokens of each example before anything is cut, special tokens included.
        max_length: Number of tokens after which examples are cut.
    """

    split: str
    rows: int
    labels: Mapping[str, int]
    lengths: np.ndarray
    max_length: int

    @property
    def cut(self) -> float:
        """Percentage of the examples that are cut."""
        return 100 * float((self.lengths > self.max_length).mean())

    def as_row(self) -> dict[str, Any]:
        """Size, percentiles of the lengths, and what is cut."""
        values = np.percentile(self.lengths, PERCENTILES, method="nearest")
        lengths = {f"p{percent}": int(value) for percent, value in zip(PERCENTILES, values, strict=True)}
        return {"split": self.split, "rows": self.rows, **lengths, "cut %": round(self.cut, 2)}


def describe_data(data: Benchmark) -> list[SplitReport]:
    """Reads and checks every row of every split that the benchmark uses."""
    return [_describe(data, split) for split in data.splits]


def write_data_report(reports: Sequence[SplitReport], directory: Path) -> list[Path]:
    """Writes `lengths.csv`, `labels.csv` where there are classes, and `report.png`.

    Returns:
        The files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = [_write(directory / "lengths.csv", [report.as_row() for report in reports])]
    rows = [
        {"split": report.split, "label": label, "rows": count, "%": round(100 * count / report.rows, 2)}
        for report in reports
        for label, count in report.labels.items()
    ]
    files += [_write(directory / "labels.csv", rows)] if rows else []
    return [*files, _draw(reports, directory / "report.png")]


def as_text(reports: Sequence[SplitReport]) -> str:
    """Both tables as Markdown."""
    tables = [[report.as_row() for report in reports]]
    names = list(dict.fromkeys(label for report in reports for label in report.labels))
    if names:
        shares = [{label: _share(report, label) for label in names} for report in reports]
        tables.append([{"split": report.split, **share} for report, share in zip(reports, shares, strict=True)])
    return "\n".join(_markdown(table) for table in tables)


def _describe(data: Benchmark, split: str) -> SplitReport:
    table = data.table(split)
    feature = table.features.get("label")
    labels = {}
    if isinstance(feature, ClassLabel):
        counts = np.bincount(whole_numbers(table, "label"), minlength=len(feature.names))
        labels = dict(zip(feature.names, counts.tolist(), strict=True))
    return SplitReport(split, len(table), labels, data.lengths(split), data.max_length)


def _share(report: SplitReport, label: str) -> str:
    count = report.labels.get(label)
    return "" if count is None else f"{count:,} ({100 * count / report.rows:.1f} %)"


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[[str(cell) for cell in row.values()] for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _draw(reports: Sequence[SplitReport], path: Path) -> Path:
    """Lengths as cumulative shares, with the line at which texts are cut, and labels as bars."""
    labelled = [report for report in reports if report.labels]
    figure, panels = plt.subplots(1, 2 if labelled else 1, figsize=(11 if labelled else 6, 4.5), layout="constrained")
    lengths = np.atleast_1d(panels)[0]
    for report in reports:
        lengths.ecdf(report.lengths, label=f"{report.split} ({report.rows:,})")
    lengths.axvline(reports[0].max_length, color="black", ls="--", label=f"max_length {reports[0].max_length}")
    lengths.set(xlabel="tokens", ylabel="share of examples at most as long")
    lengths.legend()
    lengths.grid(alpha=0.3)
    if labelled:
        names = list(labelled[0].labels)
        for number, report in enumerate(labelled):
            places = np.arange(len(names)) + 0.8 * (number - (len(labelled) - 1) / 2) / len(labelled)
            heights = [100 * report.labels[name] / report.rows for name in names]
            panels[1].bar(places, heights, 0.8 / len(labelled), label=report.split)
        panels[1].set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0)
        panels[1].set(ylabel="% of examples")
        panels[1].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
