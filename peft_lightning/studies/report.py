"""What a study found: every run as CSV, the chosen ones as a table and as a figure."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from peft_lightning.figures import line_style
from peft_lightning.studies.curve_points import curve_points
from peft_lightning.studies.curve_report import write_curve
from peft_lightning.studies.study import PlannedRun, Study


@dataclass(frozen=True)
class Row:
    """One variant at its chosen point, over its seeds.

    Args:
        variant: Its name.
        chosen: The options that were chosen.
        metric: Name of the metric.
        test: Mean of the test metric.
        test_error: Its standard error (ddof 1); not a number with one seed.
        validation: Mean of the validation metric.
        seeds: Number of seeds.
        method: Parameters of the method.
        trained: Trained parameters with head and LayerNorms.
        percent: Trained parameters in percent of the backbone's.
        seconds: Shortest time of training over the seeds, as the machine may be busy with something else.
        peak_memory_mib: Largest peak memory.
        checkpoint_bytes: Size of the best checkpoint.
    """

    variant: str
    chosen: str
    metric: str
    test: float
    test_error: float
    validation: float
    seeds: int
    method: int
    trained: int
    percent: float
    seconds: float
    peak_memory_mib: float
    checkpoint_bytes: int


def write_report(study: Study, results: Mapping[Path, Mapping[str, Any]]) -> list[Path]:
    """Writes `runs.csv`, `table.csv`, `table.md` and `figure.png` into the directory of the study.

    Variants of which a run is missing are left out. A study with a figure of its own has all points of it in
    `figure.csv`, `figure.md`, `figure.png` and `figure.pdf` instead of the table.

    Returns:
        The files.

    Raises:
        UserError: A run does not have the metric that the figure wants.
    """
    study.runs.mkdir(parents=True, exist_ok=True)
    runs, table, markdown, figure = (study.runs / name for name in ("runs.csv", "table.csv", "table.md", "figure.png"))
    done = [run for run in study.planned(results) if run.directory in results]
    _write_csv(runs, [_run_row(run, results[run.directory]) for run in done])
    if study.curve is not None:
        return [runs, *write_curve(study.curve, curve_points(study, results), study.runs / "figure")]
    rows = [row for variant in study.variants if (row := _row(study, variant, results))]
    _write_csv(table, [asdict(row) for row in rows])
    markdown.write_text(_markdown(rows), encoding="utf-8")
    if rows:
        _draw(rows, figure)
    return [path for path in (runs, table, markdown, figure) if path.exists()]


def _row(study: Study, variant: str, results: Mapping[Path, Mapping[str, Any]]) -> Row | None:
    chosen = study.chosen(variant, results)
    if chosen is None or any(run.directory not in results for run in chosen):
        return None
    found = [results[run.directory] for run in chosen]
    metric = found[0]["monitor"]
    test = [_number(result["metrics"].get(f"test/{metric}")) for result in found]
    parameters = found[0]["parameters"]
    return Row(
        variant=variant,
        chosen=" ".join(f"{option}={value}" for option, value in chosen[0].point),
        metric=metric,
        test=statistics.mean(test),
        test_error=statistics.stdev(test) / math.sqrt(len(test)) if len(test) > 1 else math.nan,
        validation=statistics.mean(_number(result["metrics"].get(f"val/{metric}")) for result in found),
        seeds=len(found),
        method=parameters["method"],
        trained=parameters["trained"],
        percent=100 * parameters["trained"] / parameters["backbone"],
        seconds=min(result["seconds"] for result in found),
        peak_memory_mib=max(result["peak_memory_bytes"] for result in found) / 2**20,
        checkpoint_bytes=max(result["checkpoint_bytes"] or 0 for result in found),
    )


def _run_row(run: PlannedRun, result: Mapping[str, Any]) -> dict[str, Any]:
    options = " ".join(f"{option}={value}" for option, value in run.point)
    kept = {name: result["metrics"].get(f"{split}/{result['monitor']}") for name, split in _SPLITS.items()}
    return {
        "variant": run.variant,
        "options": options,
        "seed": run.seed,
        "status": result["status"],
        **kept,
        "seconds": result["seconds"],
    }


_SPLITS = {"validation": "val", "test": "test"}


def _markdown(rows: Sequence[Row]) -> str:
    head = ["method", "test", "chosen", "seeds", "trained", "%", "seconds", "peak MiB", "checkpoint kB"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        error = "" if math.isnan(row.test_error) else f" ± {row.test_error:.4f}"
        lines.append(
            [
                row.variant,
                f"{row.test:.4f}{error}",
                row.chosen,
                str(row.seeds),
                f"{row.trained:,}",
                f"{row.percent:.2f}",
                f"{row.seconds:.0f}",
                f"{row.peak_memory_mib:,.0f}",
                f"{row.checkpoint_bytes / 1000:,.0f}",
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _draw(rows: Sequence[Row], path: Path) -> None:
    """The test metric against the number of trained parameters; the legend is in the order of the metric."""
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    for number, row in enumerate(sorted(rows, key=lambda row: -row.test)):
        error = 0.0 if math.isnan(row.test_error) else row.test_error
        style: dict[str, Any] = {**line_style(number), "markeredgecolor": "black"}
        axes.errorbar(row.trained, row.test, error, fmt="", ls="none", ms=8, capsize=3, label=row.variant, **style)
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters, head included")
    axes.set_ylabel(f"test {rows[0].metric} (mean and standard error over seeds)")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(rows)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
