"""The heatmap of a layer removal, in the form of Figure 6 of Houlsby et al. 2019."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch.utils.tensorboard import SummaryWriter

from peft_lightning.figures import save_figure
from peft_lightning.runs.removal_table import Change, RemovalRow

log = logging.getLogger(__name__)

Limits = tuple[float, float]
# More layers than this, and numbers in the cells could not be read.
MOST_WITH_NUMBERS = 12


def heatmap_grid(rows: Sequence[RemovalRow], metric: str, change: Change) -> np.ndarray:
    """The changes of one metric, in percent where they are relative.

    Returns:
        `[layers, layers]`, first removed layer by last removed layer; not a number below the diagonal.
    """
    spans = [row for row in rows if row.metric == metric and row.first is not None]
    layers = 1 + max(row.first for row in spans if row.first is not None)
    grid = np.full((layers, layers), math.nan)
    for row in spans:
        grid[row.first, row.last] = 100 * row.relative_change if change == "relative" else row.absolute_change
    return grid


def heatmap_files(table: Path, rows: Sequence[RemovalRow], metrics: Sequence[str], change: Change) -> list[Path]:
    """The files of `draw_heatmaps`: PNG and PDF of each metric, beside the table."""
    stems = [_stem(table, metric, _shown(rows, metric, change)) for metric in metrics]
    return [stem.with_name(f"{stem.name}.{kind}") for stem in stems for kind in ("png", "pdf")]


def draw_heatmaps(
    table: Path,
    rows: Sequence[RemovalRow],
    metrics: Sequence[str],
    change: Change,
    title: str,
    limits: Limits | None = None,
) -> None:
    """Draws a heatmap of each metric, as PNG and PDF beside the table and as an image in TensorBoard.

    Where the intact model has 0 no change is relative to it, and absolute ones are drawn.

    Args:
        table: The file of the table.
        rows: Its rows.
        metrics: What to draw.
        change: Whether relative changes are shown, in percent, or absolute ones.
        title: The first line of the title.
        limits: The lowest and the highest value of the colour bar; by default those of the changes, and 0.
    """
    with SummaryWriter(str(table.parent / "tensorboard")) as writer:
        for metric in metrics:
            shown = _shown(rows, metric, change)
            if shown != change:
                log.warning(
                    f"{metric} is 0 for the intact model: absolute changes are drawn, as none is relative to 0."
                )
            figure = _draw(heatmap_grid(rows, metric, shown), rows, metric, shown, title, limits)
            stem = _stem(table, metric, shown)
            save_figure(figure, stem)
            writer.add_figure(f"{table.stem}/{stem.name.removeprefix(f'{table.stem}_')}", figure)


def _shown(rows: Sequence[RemovalRow], metric: str, change: Change) -> Change:
    undefined = any(math.isnan(row.relative_change) for row in rows if row.metric == metric)
    return "absolute" if undefined else change


def _stem(table: Path, metric: str, shown: Change) -> Path:
    return table.with_name(f"{table.stem}_{metric}{'_absolute' if shown == 'absolute' else ''}")


def _draw(
    grid: np.ndarray,
    rows: Sequence[RemovalRow],
    metric: str,
    change: Change,
    title: str,
    limits: Limits | None,
) -> Figure:
    """x: last removed layer, y: first removed layer; single layers, on the diagonal, are outlined."""
    layers = len(grid)
    size = 3.2 + 0.42 * layers
    figure, axes = plt.subplots(figsize=(size + 1.2, size), layout="constrained")
    # Nothing changes is the bright end, whether changes go down, as those of accuracy, or up, as those of a loss.
    low, high = min(0.0, float(np.nanmin(grid, initial=0.0))), max(0.0, float(np.nanmax(grid, initial=0.0)))
    low, high = limits or ((low, high) if low < high else (-1.0, 1.0))
    image = axes.imshow(grid, cmap="viridis" if -low >= high else "viridis_r", vmin=low, vmax=high)
    unit = "relative change of {} (%)" if change == "relative" else "change of {}"
    figure.colorbar(image, ax=axes, label=unit.format(metric.replace("_", " ")))
    for layer in range(layers):
        outline = Rectangle((layer - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="black", lw=1.5, clip_on=False)
        axes.add_patch(outline)
    digits = 1 if change == "relative" else 3
    if layers <= MOST_WITH_NUMBERS:
        for first, last in np.argwhere(np.triu(np.ones_like(grid))).tolist():
            # Adding 0 takes the sign from what is rounded to -0.
            value = round(grid[first, last], digits) + 0.0
            colour = _legible_on(tuple(image.cmap(image.norm(value))))
            axes.text(last, first, f"{value:.{digits}f}", ha="center", va="center", fontsize=8, color=colour)
    ticks = range(0, layers, 1 if layers <= MOST_WITH_NUMBERS else 2)
    axes.set(xticks=ticks, yticks=ticks, xlabel="last removed layer", ylabel="first removed layer")
    intact = next(row for row in rows if row.metric == metric and row.first is None)
    runs = f", mean of {intact.runs} runs" if intact.runs > 1 else ""
    axes.set_title(f"{title}\n{metric.replace('_', ' ')} of the intact model: {intact.value:.4f}{runs}", fontsize=10)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _legible_on(colour: Sequence[float]) -> str:
    """Black or white, whichever has the higher contrast (WCAG 2.2, relative luminance)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"
