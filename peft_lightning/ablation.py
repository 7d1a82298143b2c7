"""The verb `ablate`: the layer removal of one run, or the mean over several."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory
from peft_lightning.runs.directory import differences
from peft_lightning.runs.removal_table import RemovalRow, mean_rows, read_record, read_rows, removal_path, write_rows
from peft_lightning.storage.generations import read_manifest

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
    _check_runs(options.runs)
    tables = [removal_path(Path(path), options.split, options.layer_norms) for path in options.runs]
    made = [_evaluated(*run, options, others, evaluate) for run in zip(options.runs, tables, strict=True)]
    if getattr(rank_zero_only, "rank", 0):
        return  # another process has written the tables, and goes on with them
    if options.output is not None:
        tables, made = [_mean(tables, options)], [False]
    table, rows = tables[0], read_rows(tables[0])
    # Imported here because plots take a second to load.
    from peft_lightning.runs.removal_heatmap import draw_heatmaps, heatmap_files

    run = RunDirectory(options.runs[0])
    known = [row.metric for row in rows if row.metric != "loss"]
    metrics = options.metric or ["accuracy" if "accuracy" in known else run.read_result().get("monitor", known[0])]
    if not made[0]:  # by an evaluation, which draws its heatmap itself
        method = run.read_config()["model"]["class_path"].rpartition(".")[2]
        draw_heatmaps(table, rows, metrics, options.change, f"{method}, {options.split} split", options.limits)
    files = heatmap_files(table, rows, metrics, options.change)
    print("\n".join([_in_words(rows, metric) for metric in metrics] + ["", *map(str, [table, *files])]))


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
    parser.add_argument(
        "--limits",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=float,
        help="ends of the colour bar, so that figures can be compared",
    )
    parser.add_argument("--max_rows", type=int, default=256, help="most rows that go through a layer at once")
    parser.add_argument("--output", metavar="DIRECTORY", type=Path, help="where the mean of the runs is written")
    parser.add_argument("--overwrite", action="store_true", help="evaluate again, and replace what is there")
    return parser


def _evaluated(path: str, table: Path, options: argparse.Namespace, others: Sequence[str], evaluate: Evaluate) -> bool:
    """Makes the table of one run if it is not there; says whether it was made."""
    if table.exists() and not options.overwrite:
        if others:
            raise UserError(f"{table} exists, and options are given to evaluate with; give --overwrite too.")
        _check_metrics(table, options.metric)
        _check_record(table, RunDirectory(path))
        return False
    before = table.stat().st_mtime_ns if table.exists() else None
    given = {
        "metrics": f"[{','.join(options.metric)}]" if options.metric else "null",
        "layer_norms": str(options.layer_norms).lower(),
        "change": options.change,
        "limits": str(options.limits or "null"),
        "max_rows": options.max_rows,
        "overwrite": str(options.overwrite).lower(),
    }
    callback = [f"--trainer.callbacks.{name}={value}" for name, value in given.items()]
    verb = "validate" if options.split == "validation" else "test"
    evaluate(verb, path, ["--trainer.callbacks+=LayerRemoval", *callback, *others])
    if not getattr(rank_zero_only, "rank", 0) and (not table.exists() or table.stat().st_mtime_ns == before):
        raise UserError(
            f"Nothing was evaluated, so that there is no table of {path}; let the options leave some batches."
        )
    return True


def _check_runs(paths: Sequence[str]) -> None:
    """Checks that runs which are to be averaged differ in nothing but their seeds."""
    runs = [RunDirectory.existing(path) for path in paths]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UserError("A run is given twice; give each once.")
    first, *others = runs
    for other in others:
        different = differences(first.read_config(), other.read_config())
        different.pop("seed_everything", None)
        for key, (one, two) in different.items():
            raise UserError(
                f"{first.path} and {other.path} cannot be averaged: {key} is {one!r} in one and {two!r} in the other; "
                "give runs that differ in their seeds only."
            )


def _check_record(table: Path, run: RunDirectory) -> None:
    """Checks that a table is of the weights that the run has now, and of all its data."""
    record = read_record(table)
    manifest = read_manifest(run.best_checkpoint)
    is_of_these = manifest is not None and record.get("checkpoint") == manifest.sha256
    if not (is_of_these and record.get("of_the_run")):
        raise UserError(
            f"{table} is of other weights, data or limits than those of the run now; give --overwrite to evaluate the "
            "run again."
        )


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
