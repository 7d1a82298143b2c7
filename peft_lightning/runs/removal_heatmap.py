"""The heatmap of a layer removal, in the form of Figure 6 of Houlsby et al. 2019."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch.utils.tensorboard import SummaryWriter

from peft_lightning.figures import save_figure
from peft_lightning.runs.removal_table import Change, RemovalRow

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


def write_heatmaps(
    table: Path, rows: Sequence[RemovalRow], metrics: Sequence[str], change: Change, title: str
) -> list[Path]:
    """Writes a heatmap of each metric as PNG and PDF beside the table.

    Returns:
        The files.
    """
    files: list[Path] = []
    for metric in metrics:
        with _drawn(rows, metric, change, title) as figure:
            files += save_figure(figure, table.with_name(f"{table.stem}_{metric}"))
    return files


def log_heatmaps(
    directory: Path, table: Path, rows: Sequence[RemovalRow], metrics: Sequence[str], change: Change, title: str
) -> None:
    """Puts the same heatmaps into the TensorBoard log of a directory."""
    with SummaryWriter(str(directory)) as writer:
        for metric in metrics:
            with _drawn(rows, metric, change, title) as figure:
                writer.add_figure(f"{table.stem}/{metric}", figure, close=False)


@contextmanager
def _drawn(rows: Sequence[RemovalRow], metric: str, change: Change, title: str) -> Iterator[Figure]:
    figure = _draw(heatmap_grid(rows, metric, change), rows, metric, change, title)
    yield figure
    plt.close(figure)


def _draw(grid: np.ndarray, rows: Sequence[RemovalRow], metric: str, change: Change, title: str) -> Figure:
    """x: last removed layer, y: first removed layer; single layers, on the diagonal, are outlined."""
    layers = len(grid)
    size = 3.2 + 0.42 * layers
    figure, axes = plt.subplots(figsize=(size + 1.2, size), layout="constrained")
    # Nothing changes is the bright end, whether changes go down, as those of accuracy, or up, as those of a loss.
    low, high = min(0.0, float(np.nanmin(grid, initial=0.0))), max(0.0, float(np.nanmax(grid, initial=0.0)))
    low, high = (low, high) if low < high else (-1.0, 1.0)
    image = axes.imshow(grid, cmap="viridis" if -low >= high else "viridis_r", vmin=low, vmax=high)
    unit = "relative change of {} (%)" if change == "relative" else "change of {}"
    figure.colorbar(image, ax=axes, label=unit.format(metric.replace("_", " ")))
    for layer in range(layers):
        axes.add_patch(Rectangle((layer - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="black", lw=1.5))
    if layers <= MOST_WITH_NUMBERS:
        for first, last in np.argwhere(np.triu(np.ones_like(grid))).tolist():
            colour = "black" if sum(image.cmap(image.norm(grid[first, last]))[:3]) > 1.5 else "white"
            text = f"{grid[first, last]:.1f}" if change == "relative" else f"{grid[first, last]:.3f}"
            axes.text(last, first, text, ha="center", va="center", fontsize=8, color=colour)
    ticks = range(0, layers, 1 if layers <= MOST_WITH_NUMBERS else 2)
    axes.set(xticks=ticks, yticks=ticks, xlabel="last removed layer", ylabel="first removed layer")
    intact = next(row for row in rows if row.metric == metric and row.first is None)
    runs = f", mean of {intact.runs} runs" if intact.runs > 1 else ""
    axes.set_title(f"{title}\n{metric.replace('_', ' ')} of the intact model: {intact.value:.4f}{runs}", fontsize=10)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure
