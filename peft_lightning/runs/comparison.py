"""Several runs side by side: one row a configuration, over its seeds."""

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft_lightning.errors import UserError
from peft_lightning.runs.directory import RunDirectory, comparable

HEADER = ("run", "test", "validation", "seeds", "trained", "% of backbone", "seconds", "peak MiB", "checkpoint MiB")


def comparison_table(runs: Sequence[RunDirectory]) -> str:
    """A Markdown table with one row a configuration.

    Runs that differ in nothing but the seed share a row: mean and standard error of the monitored metric (ddof 1; no
    error with one seed), mean seconds, and the largest peak memory. Runs that are not done are named below the table.

    Raises:
        UserError: Two runs have the same configuration and the same seed.
    """
    groups: dict[str, list[tuple[RunDirectory, dict[str, Any]]]] = {}
    unfinished = []
    for run in {run.path.resolve(): run for run in runs}.values():
        result = run.read_result()
        if result.get("status") == "done":
            groups.setdefault(_configuration(run), []).append((run, result))
        else:
            unfinished.append(f"{run.path} ({result.get('status', 'not started')})")
    for group in groups.values():
        seeds = [result["seed"] for _, result in group]
        if len(set(seeds)) < len(seeds):
            paths = ", ".join(str(run.path) for run, _ in group)
            raise UserError(f"{paths} have the same configuration, and some the same seed; give each seed once.")
    lines = [_line(HEADER), _line(["---"] + ["---:"] * (len(HEADER) - 1))]
    lines += [_line(_row(group)) for group in groups.values()]
    if unfinished:
        lines += ["", f"Not done: {', '.join(unfinished)}."]
    return "\n".join(lines)


def _configuration(run: RunDirectory) -> str:
    options = comparable(run.read_config())
    return json.dumps({key: value for key, value in options.items() if key != "seed_everything"}, sort_keys=True)


def _row(group: Sequence[tuple[RunDirectory, dict[str, Any]]]) -> list[str]:
    results = [result for _, result in group]
    first = results[0]
    parameters = first["parameters"]
    return [
        _name(group[0][0].path.resolve()),
        _mean_and_error([r["metrics"].get(f"test/{r['monitor']}") for r in results]),
        _mean_and_error([r["metrics"].get(f"val/{r['monitor']}") for r in results]),
        str(len(results)),
        f"{parameters['trained']:,}",
        f"{100 * parameters['trained'] / parameters['backbone']:.2f}",
        f"{statistics.mean(r['seconds'] for r in results):.0f}",
        f"{max(r['peak_memory_bytes'] for r in results) / 2**20:,.0f}",
        f"{first['checkpoint_bytes'] / 2**20:.2f}" if first["checkpoint_bytes"] else "-",
    ]


def _name(path: Path) -> str:
    """The name that tells a run from others: METHOD/HASH in a default directory, else the last part but the seed."""
    own = path.parent if path.name.startswith("seed") else path
    return f"{own.parent.name}/{own.name}" if re.fullmatch(r"[0-9a-f]{8}", own.name) else own.name


def _mean_and_error(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    mean = f"{statistics.mean(known):.4f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known) / len(known) ** 0.5:.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
