"""The file that GLUE's server takes."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft_lightning.data.glue_tasks import GLUE_TASKS, GlueTask
from peft_lightning.errors import UserError
from peft_lightning.runs.directory import RunDirectory
from peft_lightning.storage.writing import replacing

# Task -> name of a set of predictions -> file in the submission (gluebenchmark.com/faq).
_FILES: dict[str, dict[str, str]] = {
    **{task: {"": f"{facts.folder}.tsv"} for task, facts in GLUE_TASKS.items()},
    "mnli": {"": "MNLI-m.tsv", "mismatched": "MNLI-mm.tsv", "ax": "AX.tsv"},
}


def write_submission(runs: Sequence[RunDirectory], target: Path, overwrite: bool = False) -> list[str]:
    """Writes a zip file with a table `index`, `prediction` a task.

    Labels are named or numbered as the server wants them for each task; scores of STS-B are cut to 0 to 5.

    Args:
        runs: Runs of GLUE, one a task, whose test splits were predicted.
        target: The zip file to write.
        overwrite: Whether to replace a file that exists.

    Returns:
        The files that the server wants and that these runs do not give.

    Raises:
        UserError: A run is of other data or was not predicted, two are of one task, or the target exists.
    """
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; choose another --output or add --overwrite.")
    tables: dict[str, str] = {}
    for run in runs:
        task = _task(run)
        found = {file: run.predictions_of(name) for name, file in _FILES[task].items()}
        if not found[_FILES[task][""]].is_file():
            raise UserError(f"{run.path} holds no predictions; run: peft-lightning predict {run.path}")
        for file, predictions in found.items():
            if file in tables:
                raise UserError(f"{run.path} is a second run of the task {task}; give one a task.")
            if predictions.is_file():
                tables[file] = _table(predictions, GLUE_TASKS[task])
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, table in tables.items():
            archive.writestr(file, table)
    return [file for files in _FILES.values() for file in files.values() if file not in tables]


def _task(run: RunDirectory) -> str:
    data: dict[str, Any] = run.read_config()["data"]
    if data["class_path"].rpartition(".")[2] != "GLUE":
        raise UserError(f"{run.path} is a run of {data['class_path'].rpartition('.')[2]}; give runs of GLUE.")
    return str(data["init_args"]["task"])


def _table(predictions: Path, facts: GlueTask) -> str:
    lines = ["index\tprediction"]
    for line in predictions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        lines.append(f"{row['row'] - 1}\t{_value(row, facts)}")
    return "\n".join(lines) + "\n"


def _value(row: dict[str, Any], facts: GlueTask) -> str:
    if facts.labels is None:
        return f"{min(max(row['score'], 0.0), 5.0):.3f}"
    return row["label"] if facts.by_name else str(list(facts.labels).index(row["label"]))
