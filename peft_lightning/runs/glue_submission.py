"""The file that GLUE's server takes."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft_lightning.data.glue_submission import SUBMISSION_FILES, submission_table
from peft_lightning.data.glue_tasks import GLUE_TASKS
from peft_lightning.errors import UserError
from peft_lightning.runs.directory import RunDirectory
from peft_lightning.storage.writing import replacing


def write_submission(runs: Sequence[RunDirectory], target: Path, overwrite: bool = False) -> list[str]:
    """Writes a zip file with a table `index`, `prediction` a task.

    Args:
        runs: Runs of GLUE, one a task, whose test splits were predicted.
        target: The zip file to write.
        overwrite: Whether to replace a file that exists.

    Returns:
        The files that the server wants and that these runs do not give.

    Raises:
        UserError: A run is of other data or was not predicted, or not all of it, two are of one task, or the target
            exists.
    """
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; choose another --output or add --overwrite.")
    tables: dict[str, str] = {}
    for run in runs:
        task = _task(run)
        found = {file: run.predictions_of(name) for name, file in SUBMISSION_FILES[task].items()}
        if not found[SUBMISSION_FILES[task][""]].is_file():
            raise UserError(f"{run.path} holds no predictions; run: peft-lightning predict {run.path}")
        for file, predictions in found.items():
            if file in tables:
                raise UserError(f"{run.path} is a second run of the task {task}; give one a task.")
            if predictions.is_file():
                tables[file] = submission_table(_rows(run, predictions), GLUE_TASKS[task])
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, table in tables.items():
            archive.writestr(file, table)
    return [file for files in SUBMISSION_FILES.values() for file in files.values() if file not in tables]


def _task(run: RunDirectory) -> str:
    data: dict[str, Any] = run.read_config()["data"]
    if data["class_path"].rpartition(".")[2] != "GLUE":
        raise UserError(f"{run.path} is a run of {data['class_path'].rpartition('.')[2]}; give runs of GLUE.")
    return str(data["init_args"]["task"])


def _rows(run: RunDirectory, predictions: Path) -> list[dict[str, Any]]:
    """The lines of a file of predictions, of which none may be missing."""
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").split("\n") if line]
    wanted = run.read_result().get("predicted", {}).get(predictions.name)
    if len(rows) != wanted:
        of_how_many = f"{wanted} rows" if wanted is not None else "an unknown number of rows"
        raise UserError(
            f"{predictions} holds {len(rows)} of {of_how_many}, and the server takes whole test splits; move the "
            f"run's files of predictions away and run: peft-lightning predict {run.path}"
        )
    return rows
