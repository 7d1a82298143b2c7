"""What a benchmark holds: sizes, labels and lengths of its splits, as tables and as a figure."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from datasets import ClassLabel, Dataset

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from peft_lightning.data.base import Benchmark

PERCENTILES = (5, 25, 50, 75, 95, 99, 100)


@dataclass(frozen=True)
class SplitReport:
    """One split, all of whose rows have been checked.

    Args:
        split: Its name.
        rows: Number of examples.
        labels: How often there is each label: classes, tags of words, rounded scores, or whether there is an
            answer; empty where texts are asked for.
        lengths: What is cut -> its number of tokens in each example before that, special tokens included.
        limits: What is cut -> after how many tokens.
    """

    split: str
    rows: int
    labels: Mapping[str, int]
    lengths: Mapping[str, np.ndarray]
    limits: Mapping[str, int]

    def as_rows(self) -> list[dict[str, Any]]:
        """Size, percentiles of the lengths, and what is cut: a row, or one for everything that is cut by itself."""
        return [self._as_row(name) for name in self.limits]

    def _as_row(self, name: str) -> dict[str, Any]:
        lengths = self.lengths[name]
        values = np.percentile(lengths, PERCENTILES, method="nearest")
        percentiles = {f"p{percent}": int(value) for percent, value in zip(PERCENTILES, values, strict=True)}
        cut = round(100 * float((lengths > self.limits[name]).mean()), 2)
        return {"split": self.split, **({"of": name} if name else {}), "rows": self.rows, **percentiles, "cut %": cut}

    def share(self, label: str) -> float | None:
        """Percentage of a label; None where the split has none."""
        return 100 * self.labels[label] / sum(self.labels.values()) if label in self.labels else None


def describe_data(data: Benchmark) -> list[SplitReport]:
    """Reads and checks every row of every split that the benchmark uses."""
    return [_describe(data, split) for split in data.splits]


def write_data_report(reports: Sequence[SplitReport], directory: Path) -> list[Path]:
    """Writes `lengths.csv`, `labels.csv` where there are classes, and `report.png`.

    Returns:
        The files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = [_write(directory / "lengths.csv", [row for report in reports for row in report.as_rows()])]
    rows = [
        {"split": report.split, "label": label, "count": count, "%": round(report.share(label) or 0.0, 2)}
        for report in reports
        for label, count in report.labels.items()
    ]
    files += [_write(directory / "labels.csv", rows)] if rows else []
    return [*files, _draw(reports, directory / "report.png")]


def as_text(reports: Sequence[SplitReport]) -> str:
    """Both tables as Markdown."""
    tables = [[row for report in reports for row in report.as_rows()]]
    names = list(dict.fromkeys(label for report in reports for label in report.labels))
    if names:
        shares = [{label: _cell(report, label) for label in names} for report in reports]
        tables.append([{"split": report.split, **share} for report, share in zip(reports, shares, strict=True)])
    return "\n".join(_markdown(table) for table in tables)


def _describe(data: Benchmark, split: str) -> SplitReport:
    table = data.table(split)
    return SplitReport(split, len(table), _labels(table), data.lengths(split), data.limits)


def _labels(table: Dataset) -> dict[str, int]:
    columns, feature = table.with_format("numpy"), table.features.get("label")
    tags = getattr(table.features.get("tags"), "feature", None)
    if isinstance(feature, ClassLabel):
        return _counts(columns["label"][:], feature.names)
    if isinstance(tags, ClassLabel):
        return _counts(np.concatenate([*table["tags"]]), tags.names)
    if feature is not None:
        scores = np.rint(columns["label"][:]).astype(int)
        return {f"about {n}": int((scores == n).sum()) for n in range(scores.min(), scores.max() + 1)}
    if "answer_start" in table.column_names:
        answered = int((columns["answer_start"][:] >= 0).sum())
        return {"answer": answered, "no answer": len(table) - answered}
    return {}


def _counts(numbers: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    return dict(zip(names, np.bincount(numbers, minlength=len(names)).tolist(), strict=True))


def _cell(report: SplitReport, label: str) -> str:
    share = report.share(label)
    return "" if share is None else f"{report.labels[label]:,} ({share:.1f} %)"


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
        for name, counts in report.lengths.items():
            lengths.ecdf(counts, label=f"{report.split}{name and f', {name}'} ({report.rows:,})")
    for name, limit in reports[0].limits.items():
        lengths.axvline(limit, color="black", ls="--", label=f"{name or 'all'} cut after {limit}")
    lengths.set(xlabel="tokens", ylabel="share of examples at most as long")
    lengths.legend()
    lengths.grid(alpha=0.3)
    if labelled:
        names = list(dict.fromkeys(name for report in labelled for name in report.labels))
        for number, report in enumerate(labelled):
            places = np.arange(len(names)) + 0.8 * (number - (len(labelled) - 1) / 2) / len(labelled)
            heights = [report.share(name) or 0.0 for name in names]
            panels[1].bar(places, heights, 0.8 / len(labelled), label=report.split)
        panels[1].set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0)
        panels[1].set(ylabel="%")
        panels[1].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
