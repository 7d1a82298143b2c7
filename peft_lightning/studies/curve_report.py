"""The curve of a study as PNG and PDF, with the numbers that were drawn beside it."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from peft_lightning.figures import line_style, save_figure
from peft_lightning.studies.curve import Curve
from peft_lightning.studies.curve_points import CurvePoint


def write_curve(curve: Curve, points: Sequence[CurvePoint], stem: Path) -> list[Path]:
    """Writes `STEM.csv`, `STEM.md`, `STEM.png` and `STEM.pdf`.

    Args:
        curve: What the figure looks like.
        points: Its points.
        stem: The files without their suffix.

    Returns:
        The files.
    """
    numbers, table = stem.with_suffix(".csv"), stem.with_suffix(".md")
    with numbers.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(CurvePoint)])
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)
    table.write_text(_markdown(curve, points), encoding="utf-8")
    return [numbers, table, *_draw(curve, points, stem)]


def _markdown(curve: Curve, points: Sequence[CurvePoint]) -> str:
    variants = list(dict.fromkeys(point.variant for point in points))
    by_place = {(point.x, point.variant): point for point in points}
    lines = [[curve.label, *variants], ["---:"] * (1 + len(variants))]
    for x in sorted({point.x for point in points}):
        lines.append([f"{x:g}", *(_cell(by_place.get((x, variant))) for variant in variants)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{_statistic(points)}\n"


def _cell(point: CurvePoint | None) -> str:
    if point is None:
        return ""
    found = "-" if point.mean is None else f"{point.mean:.4f}"
    error = "" if point.error is None else f" ± {point.error:.4f}"
    counts = [f"{n} of {point.seeds} {what}" for what in ("missing", "diverged") if (n := getattr(point, what))]
    return f"{found}{error}" + (f" ({', '.join(counts)})" if counts else "")


def _statistic(points: Sequence[CurvePoint]) -> str:
    """What is shown, in words."""
    counts = sorted({point.seeds for point in points})
    seeds = f"n = {counts[0]} seed{'' if counts == [1] else 's'}" if len(counts) == 1 else f"n = {counts} seeds"
    error = "" if counts == [1] else " ± standard error"
    return f"{points[0].metric.replace('val/', 'validation ').replace('test/', 'test ')}, mean{error}, {seeds}"


def _draw(curve: Curve, points: Sequence[CurvePoint], stem: Path) -> list[Path]:
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, variant in enumerate(dict.fromkeys(point.variant for point in points)):
        line = [point for point in points if point.variant == variant]
        # A point without a mean leaves a gap: a line across it would say that something was measured there.
        x, mean = [p.x for p in line], [_drawn(p.mean) for p in line]
        error = [p.error or 0.0 for p in line]
        axes.errorbar(x, mean, error, capsize=3, ms=6, lw=1.5, label=variant, **line_style(number))  # type: ignore[arg-type]
    axes.set_xscale(curve.scale)
    axes.set_xlabel(curve.label)
    axes.set_ylabel(_statistic(points))
    axes.grid(alpha=0.3)
    _mark_lost(axes, points)
    if len({point.variant for point in points}) > 1:
        axes.legend(frameon=False)
    files = save_figure(figure, stem)
    plt.close(figure)
    return files


def _mark_lost(axes: Any, points: Sequence[CurvePoint]) -> None:
    """Says above the axes where runs are missing or have diverged, and how many of those at this x."""
    for x in sorted({point.x for point in points if point.missing or point.diverged}):
        here = [point for point in points if point.x == x]
        planned = sum(point.seeds for point in here)
        counts = {what: sum(getattr(point, what) for point in here) for what in ("missing", "diverged")}
        text = ", ".join(f"{count}/{planned} {what}" for what, count in counts.items() if count)
        place = {"transform": axes.get_xaxis_transform(), "color": "#B00020"}
        axes.text(x, 1.02, text, fontsize=8, rotation=30, ha="left", va="bottom", **place)
        # A text alone does not widen the axis.
        axes.plot(x, 1.0, "x", clip_on=False, **place)


def _drawn(value: float | None) -> float:
    return float("nan") if value is None else value
