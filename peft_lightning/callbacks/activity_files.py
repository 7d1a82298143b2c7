"""What `AdapterActivity` found, as CSV, as a figure, and in TensorBoard."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from peft_lightning.figures import line_style, save_figure


@dataclass(frozen=True)
class ActivityRow:
    """What one inserted module does.

    Args:
        layer: Number of its layer.
        site: Name of its site.
        module: Its class.
        tokens: Number of tokens that were looked at.
        moved: Mean of `||h' - h|| / ||h||`.
        inhibited: Inhibition level -> mean share of inhibited units; empty without units.
    """

    layer: int
    site: str
    module: str
    tokens: int
    moved: float
    inhibited: Mapping[float, float]


def write_activity(
    rows: Sequence[ActivityRow], stem: Path, split: str, loggers: Sequence[Logger], step: int
) -> list[Path]:
    """Writes `STEM.csv`, `STEM.png`, `STEM.pdf` and a figure in TensorBoard.

    Args:
        rows: One a module.
        stem: The files without their suffix; what is there is replaced.
        split: What was evaluated.
        loggers: Those of the trainer; without TensorBoard's, as in evaluation, the figure goes to `tensorboard/`
            beside the files.
        step: At which step of training.

    Returns:
        The files.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    numbers = stem.with_suffix(".csv")
    levels = list(dict.fromkeys(level for row in rows for level in row.inhibited))
    with numbers.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "site", "module", "tokens", "moved", *(f"inhibited_at_{level}" for level in levels)])
        for row in rows:
            shares = [row.inhibited.get(level, "") for level in levels]
            writer.writerow([row.layer, row.site, row.module, row.tokens, row.moved, *shares])
    figure = _draw(rows, levels, split)
    files = [numbers, *save_figure(figure, stem)]
    tag = f"adapter_activity/{split}"
    writers = [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]
    if writers:
        for board in writers:
            board.add_figure(tag, figure, step, close=False)
    else:
        with SummaryWriter(stem.parent / "tensorboard") as board:
            board.add_figure(tag, figure, step, close=False)
    plt.close(figure)
    return files


def _draw(rows: Sequence[ActivityRow], levels: Sequence[float], split: str) -> Figure:
    panels = 2 if levels else 1
    figure, axes = plt.subplots(1, panels, figsize=(7 * panels, 4.5), layout="constrained", squeeze=False)
    lines: dict[str, list[ActivityRow]] = {}
    for row in rows:
        lines.setdefault(f"{row.site} ({row.module})", []).append(row)
    for number, (label, line) in enumerate(lines.items()):
        axes[0][0].plot([r.layer for r in line], [r.moved for r in line], label=label, **_style(number))
    axes[0][0].set_yscale("log" if all(row.moved > 0 for row in rows) else "linear")
    axes[0][0].set_ylabel(f"||h' - h|| / ||h||, mean over {max(row.tokens for row in rows):,} tokens ({split})")
    for number, level in enumerate(levels):
        by_layer: dict[int, list[float]] = {}
        for row in rows:
            if level in row.inhibited:
                by_layer.setdefault(row.layer, []).append(row.inhibited[level])
        means = [statistics.mean(shares) for shares in by_layer.values()]
        axes[0][1].plot(list(by_layer), means, label=f"p = {level:g}", **_style(number))
        axes[0][1].set_ylabel(f"inhibited share of units, mean over sites and tokens ({split})")
        axes[0][1].set_ylim(0, 1)
    for panel in axes[0]:
        panel.set_xlabel("layer, counted from 0 at the input")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    return figure


def _style(number: int) -> dict[str, Any]:
    return {**line_style(number), "lw": 1.5, "ms": 6}
