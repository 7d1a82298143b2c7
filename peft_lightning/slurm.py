"""What a run asks of SLURM."""

import os
import subprocess

SECONDS_TO_ANSWER = 60


def requeue() -> str:
    """Asks SLURM to start this job, or this element of an array of jobs, again; nothing is asked outside SLURM.

    Returns:
        What came of it, in words; empty outside SLURM.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return ""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        answer = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, errors="replace", timeout=SECONDS_TO_ANSWER
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Job {job} was not requeued: scontrol cannot be called ({error})."
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip() or f"exit status {answer.returncode}"
        return f"Job {job} was not requeued: scontrol said '{said}'."
    return f"Job {job} is requeued."
