"""The verb `ablate`: the layer removal of one run, or the mean over several."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory
from peft_lightning.runs.removal_table import RemovalRow, mean_rows, read_rows, removal_path, write_rows

Evaluate = Callable[[str, str, Sequence[str]], None]


def ablate(arguments: list[str], evaluate: Evaluate) -> None:
    """Evaluates runs without each span of their layers, and draws the heatmap.

    Args:
        arguments: The command line behind the verb.
        evaluate: Runs `validate` or `test` on a run directory, with further options.

    Raises:
        UserError: A run was not trained, the task lacks the metric, files would be overwritten, or several runs cannot
            be averaged.
    """
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if len(options.runs) > 1 and options.output is None:
        raise UserError("Several runs are averaged; give --output DIRECTORY for their mean.")
    tables = [_evaluated(path, options, others, evaluate) for path in options.runs]
    if getattr(rank_zero_only, "rank", 0):
        return  # another process has written the tables, and goes on with them
    if options.output is not None:
        tables = [_mean(tables, options)]
    rows = read_rows(tables[0])
    # Imported here because plots take a second to load.
    from peft_lightning.runs.removal_heatmap import write_heatmaps

    results = [RunDirectory(path).read_result() for path in options.runs]
    accuracy = any(row.metric == "accuracy" for row in rows)
    metrics = options.metric or ["accuracy" if accuracy else results[0]["monitor"]]
    method = " and ".join(dict.fromkeys(result["method"] for result in results))
    files = write_heatmaps(tables[0], rows, metrics, options.change, f"{method}, {options.split} split")
    print("\n".join([_in_words(rows, metric) for metric in metrics] + ["", *map(str, [tables[0], *files])]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "peft-lightning ablate",
        description="Evaluate a run without the adaptation of each span of layers, and draw the heatmap of Houlsby et "
        "al. 2019, Figure 6. A run that was evaluated before is only drawn again. Further options are those of "
        "validate, for example --trainer.accelerator gpu.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run directory; several are averaged")
    parser.add_argument("--split", choices=["validation", "test"], default="validation", help="split to evaluate")
    parser.add_argument(
        "--metric", action="append", help="metric to draw; may be repeated; by default accuracy, or the one that chose"
    )
    parser.add_argument(
        "--layer_norms", action="store_true", help="also remove LayerNorms that were trained beside the method"
    )
    parser.add_argument("--change", choices=["relative", "absolute"], default="relative", help="what cells show")
    parser.add_argument("--max_rows", type=int, default=256, help="most rows that go through a layer at once")
    parser.add_argument("--output", metavar="DIRECTORY", type=Path, help="where the mean of the runs is written")
    parser.add_argument("--overwrite", action="store_true", help="evaluate again, and replace what is there")
    return parser


def _evaluated(path: str, options: argparse.Namespace, others: Sequence[str], evaluate: Evaluate) -> Path:
    """The table of one run, which is made if it is not there."""
    table = removal_path(RunDirectory.existing(path).path, options.split, options.layer_norms)
    if table.exists() and not options.overwrite:
        if others:
            raise UserError(f"{table} exists, and options are given to evaluate with; give --overwrite too.")
        _check_metrics(table, options.metric)
        return table
    given = {
        "metrics": f"[{','.join(options.metric)}]" if options.metric else "null",
        "layer_norms": str(options.layer_norms).lower(),
        "change": options.change,
        "max_rows": options.max_rows,
        "overwrite": str(options.overwrite).lower(),
    }
    callback = [f"--trainer.callbacks.{name}={value}" for name, value in given.items()]
    verb = "validate" if options.split == "validation" else "test"
    evaluate(verb, path, ["--trainer.callbacks+=LayerRemoval", *callback, *others])
    return table


def _mean(tables: Sequence[Path], options: argparse.Namespace) -> Path:
    path = options.output / tables[0].name
    if path.exists() and not options.overwrite:
        raise UserError(f"{path} exists; give another --output, or --overwrite.")
    rows = mean_rows([read_rows(table) for table in tables])
    options.output.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows)
    return path


def _check_metrics(table: Path, metrics: Sequence[str] | None) -> None:
    known = list(dict.fromkeys(row.metric for row in read_rows(table)))
    if unknown := [metric for metric in metrics or [] if metric not in known]:
        raise UserError(f"{table} has no metric '{unknown[0]}'; it has {', '.join(known)}.")


def _in_words(rows: Sequence[RemovalRow], metric: str) -> str:
    spans = [row for row in rows if row.metric == metric and row.first is not None]
    intact = next(row for row in rows if row.metric == metric and row.first is None)
    single = max((row for row in spans if row.first == row.last), key=lambda row: abs(row.absolute_change))
    whole = max(spans, key=lambda row: (row.last or 0) - (row.first or 0))
    return (
        f"{metric}: {intact.value:.4f} intact, {whole.value:.4f} without the adaptation of all layers; of single "
        f"layers {single.first} matters most ({single.value:.4f} without it)."
    )
