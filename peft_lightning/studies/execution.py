"""Executes a study on this machine, and goes on with one that was interrupted."""

import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from peft_lightning.callbacks.stop_on_signal import EXIT_STATUS
from peft_lightning.errors import NonFiniteError, OutOfMemoryError, TrainingError, UserError
from peft_lightning.runs import RunDirectory
from peft_lightning.studies.report import write_report
from peft_lightning.studies.signals import StudySignals
from peft_lightning.studies.study import PlannedRun, Study


def execute_in_a_process(signals: StudySignals, run: PlannedRun) -> int:
    """Does one run in a process of its own, so that its peak memory is its own; returns the exit status."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(dict(run.config), file)
        file.flush()
        arguments = [file.name, str(run.seed), str(run.directory), *(["test"] if run.tested else [])]
        return signals.execute([sys.executable, "-m", "peft_lightning.studies.one_run", *arguments])


def run_study(study: Study, execute: Callable[[PlannedRun], int] | None = None) -> list[Path]:
    """Runs what is missing, then writes the report.

    A run that fails, or is out of memory, is named in the end and does not stop the others. An interruption does; the
    same call goes on. A run whose loss is no longer finite is a result, worse than any other.

    Args:
        study: The study.
        execute: Does one run, and returns an exit status; by default in a process of its own.

    Returns:
        The files of the report.

    Raises:
        UserError: Runs have failed.
    """
    failed: dict[Path, PlannedRun] = {}
    signals = StudySignals()
    execute = execute or partial(execute_in_a_process, signals)
    with signals.handling(), tqdm(total=study.size, desc="Study", unit=" runs", file=sys.stderr) as progress:
        while run := _next(study, failed, progress):
            progress.set_postfix_str(str(run))
            status = execute(run)
            if signals.received or _was_interrupted(run, status):
                progress.close()
                raise signals.stop(str(run), status)
            if status and run.directory not in finished(study):
                failed[run.directory] = run
    files = write_report(study, finished(study))
    if failed:
        names = "; ".join(f"{run}{_why(run)}" for run in failed.values())
        raise UserError(f"{len(failed)} of {study.size} runs have failed: {names}. What they said stands above.")
    return files


def finished(study: Study) -> dict[Path, dict[str, Any]]:
    """Run directory -> result, of planned runs that were trained, and tested if that is wanted, or have diverged."""
    found: dict[Path, dict[str, Any]] = {}
    # Twice, because the second stage is known once the results of the first are.
    for _ in range(2):
        for run in study.planned(found):
            result = RunDirectory(run.directory).read_result()
            tested = any(name.startswith("test/") for name in result.get("metrics", {}))
            diverged = result.get("status") == NonFiniteError.status
            if diverged or (result.get("status") == "done" and (tested or not run.tested)):
                found[run.directory] = result
    return found


def _was_interrupted(run: PlannedRun, status: int) -> bool:
    """Whether a signal has ended a run; Lightning, too, kills the first process of a run when another one fails."""
    told = RunDirectory(run.directory).read_result().get("status")
    if status == -signal.SIGKILL and told in (OutOfMemoryError.status, TrainingError.status):
        return False
    return status < 0 or status in EXIT_STATUS.values()


def _why(run: PlannedRun) -> str:
    status = RunDirectory(run.directory).read_result().get("status")
    return f" ({status})" if status == OutOfMemoryError.status else ""


def _next(study: Study, failed: dict[Path, PlannedRun], progress: tqdm) -> PlannedRun | None:
    results = finished(study)
    progress.update(len(results) - progress.n)
    missing = (run for run in study.planned(results) if run.directory not in results.keys() | failed.keys())
    return next(missing, None)
