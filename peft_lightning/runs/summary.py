"""The result of a run as a table."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from peft_lightning.data.held_out import HeldOut
from peft_lightning.errors import UserError
from peft_lightning.runs.classes import named_class
from peft_lightning.runs.directory import RunDirectory
from peft_lightning.runs.predict_file import trained_columns


def print_summary(run: RunDirectory) -> None:
    """Prints the metrics, parameters and costs of a run, and what can be done with it next."""
    result = run.read_result()
    table = Table(title=f"{result.get('method', 'run')} on {result.get('backbone', '?')}", show_header=False)
    for name, value in result_rows(result):
        table.add_row(name, value)
    Console().print(table)
    # Paths and commands are to be copied, so they are neither wrapped nor coloured.
    path = shlex.quote(str(run.path))
    print(f"Run directory: {run.path}")
    print("Next:")
    activate = Path(sys.prefix) / "bin" / "activate"
    if activate.is_file() and shutil.which("peft-lightning") is None:
        print(f"  source {shlex.quote(os.path.relpath(activate))}")
    if run.best_checkpoint.is_file():
        if not _can_be_tested(run):
            print(f"  peft-lightning validate {path}")
            print(f"  peft-lightning predict {path}")
        elif not any(name.startswith("test/") for name in result.get("metrics", {})):
            print(f"  peft-lightning test {path}")
        if _reads_texts(run):
            print(f"  peft-lightning predict {path} --input texts.txt --output predictions.jsonl")
        print(f'  python -c "from peft_lightning import load_run; print(load_run({str(run.path)!r}))"')
    print(f"  tensorboard --logdir {path}")


def _can_be_tested(run: RunDirectory) -> bool:
    """Not if the labels of the test split are not published, and no rows are held out to choose by instead."""
    data = run.read_config()["data"]
    try:
        kind = named_class(data["class_path"])
    except UserError:  # of a user's own, which is not here
        return True
    return not issubclass(kind, HeldOut) or data.get("init_args", {}).get("validation_size") is not None


def _reads_texts(run: RunDirectory) -> bool:
    try:
        trained_columns(run.read_config()["data"])
    except UserError:
        return False
    return True


def result_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows of the table: what and how much, in words."""
    parameters = result.get("parameters", {})
    rows = [("status", str(result.get("status", "not started"))), ("seed", str(result.get("seed", "?")))]
    rows += [(name, f"{value:.4f}") for name, value in sorted(result.get("metrics", {}).items())]
    if parameters:
        percent = 100 * parameters["trained"] / parameters["backbone"]
        rows += [(f"parameters: {name}", f"{parameters[name]:,}") for name in ("method", "head", "layer_norm")]
        rows += [("parameters: trained", f"{parameters['trained']:,} ({percent:.2f} % of the backbone)")]
        rows += [("parameters: backbone", f"{parameters['backbone']:,}")]
    if "seconds" in result:
        rows += [("training time", f"{result['seconds']:.0f} s")]
        rows += [("peak memory", f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB")]
    if result.get("checkpoint_bytes"):
        rows += [("checkpoint size", f"{result['checkpoint_bytes'] / 2**20:.2f} MiB")]
    if "error" in result:
        rows += [("error", result["error"])]
    return rows
