"""Signals, really sent: the run stops with a checkpoint, a status of its own, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_files import rows_of

from peft_lightning.methods import Houlsby
from peft_lightning.runs import RunDirectory
from peft_lightning.slurm import requeue

SLURM = {
    "SLURM_JOB_ID": "4713",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def sending(monkeypatch, hook, call, *numbers):
    """Sends the signals to this process at a call, counted from 0, of a step."""
    original, count = getattr(Houlsby, hook), iter(range(10**6))

    def step(self, batch, batch_idx, *args):
        if not self.trainer.sanity_checking and next(count) == call:
            for number in numbers:
                os.kill(os.getpid(), number)
        return original(self, batch, batch_idx, *args)

    monkeypatch.setattr(Houlsby, hook, step)


def fake_scontrol(directory, monkeypatch, status=0):
    """A program on PATH that writes down what it is asked."""
    program, asked = directory / "bin" / "scontrol", directory / "asked.txt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho "Job is not requeueable" >&2\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return asked


def stopped(fit, run, *options, **others):
    with pytest.raises(SystemExit) as stop:
        fit(run.path, *options, **others)
    return stop.value.code


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_signal_waits_for_the_end_of_the_step_and_the_same_command_goes_on(
    fit, tmp_path, monkeypatch, capsys, number, status
):
    """Batch 14 is the first of step 7, which is finished; the epoch has 12 batches and 6 steps."""
    run = RunDirectory(tmp_path / "run")
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with monkeypatch.context() as context:
        sending(context, "training_step", 14, number)
        assert stopped(fit, run, "--trainer.accumulate_grad_batches=2", epochs=3) == status
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    assert f"Stopped by {number.name} at step 8; the same command goes on from {run.path}.\n" in capsys.readouterr().err
    assert run.read_result()["status"] == "interrupted"
    assert run.read_result()["signal"] == number.name
    assert "val/accuracy" in run.read_result()["metrics"]
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 8
    fit(run.path, "--trainer.accumulate_grad_batches=2", epochs=3)
    assert run.read_result()["status"] == "done"
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 18


def test_a_signal_leaves_a_validation(fit, tmp_path, monkeypatch):
    """19 rows make 3 batches; the first of them is the last that is evaluated."""
    run = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as context:
        sending(context, "validation_step", 0, signal.SIGTERM)
        assert stopped(fit, run) == 143
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 12
    assert run.read_result()["metrics"] == {}
    fit(run.path)
    assert run.read_result()["status"] == "done"


def test_a_second_interrupt_does_not_wait(fit, tmp_path, monkeypatch, capsys):
    run = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as context:
        sending(context, "training_step", 14, signal.SIGINT, signal.SIGINT)
        assert stopped(fit, run) == 130
    assert "Stopped by SIGINT; the same command goes on" in capsys.readouterr().err
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 12
    assert run.read_result()["status"] == "interrupted"


def test_other_signals_after_the_first_change_nothing(fit, tmp_path, monkeypatch):
    """SLURM sends SIGTERM when the time is over, perhaps while the checkpoint that SIGUSR1 asked for is written."""
    run = RunDirectory(tmp_path / "run")
    sending(monkeypatch, "training_step", 2, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM)
    assert stopped(fit, run) == 75
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 3


def test_before_training_there_is_nothing_to_wait_for(fit, tmp_path, monkeypatch, capsys):
    run = RunDirectory(tmp_path / "run")
    monkeypatch.setattr(Houlsby, "on_fit_start", lambda self: os.kill(os.getpid(), signal.SIGUSR1))
    assert stopped(fit, run) == 75
    assert "Stopped by SIGUSR1; the same command begins anew: nothing was saved.\n" in capsys.readouterr().err
    assert not run.last_checkpoint.exists()


@pytest.mark.parametrize(
    ("job", "status", "asked", "said"),
    [
        ({"SLURM_JOB_ID": "4713"}, 0, "requeue 4713\n", "Job 4713 is requeued."),
        ({"SLURM_JOB_ID": "4713"}, 1, "requeue 4713\n", "Job 4713 was not requeued: scontrol said 'Job is not"),
        (
            {"SLURM_JOB_ID": "4713", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "2"},
            0,
            "requeue 4711_2\n",
            "Job 4711_2 is requeued.",
        ),
        ({}, 0, None, ""),
    ],
)
def test_the_job_that_is_requeued(tmp_path, monkeypatch, job, status, asked, said):
    file = fake_scontrol(tmp_path, monkeypatch, status)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert requeue().startswith(said)
    assert (file.read_text() if file.exists() else None) == asked


def test_a_job_that_is_cancelled_is_not_requeued(fit, tmp_path, monkeypatch):
    asked = fake_scontrol(tmp_path, monkeypatch)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    sending(monkeypatch, "training_step", 2, signal.SIGTERM)
    assert stopped(fit, RunDirectory(tmp_path / "run")) == 143
    assert not asked.exists()


def test_where_scontrol_is_missing_the_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "4713")
    assert requeue().startswith("Job 4713 was not requeued: scontrol cannot be called")


SLOW = """
import os, sys, time
from peft_lightning.cli import main
from peft_lightning.methods import LoRA

original = LoRA.training_step

def training_step(self, batch, batch_idx):
    time.sleep(float(os.environ["SECONDS_A_BATCH"]))
    return original(self, batch, batch_idx)

LoRA.training_step = training_step
if __name__ == "__main__":
    main(sys.argv[1:])
"""


def start(tmp_path, tiny, reviews, seconds, *options, **environment):
    script = tmp_path / "slow.py"
    script.write_text(SLOW, encoding="utf-8")
    command = [sys.executable, str(script), "fit", "--model=LoRA", f"--model.backbone={tiny()}"]
    command += ["--data=TextClassification", f"--data.source={reviews}", "--data.max_length=16", "--data.batch_size=8"]
    command += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=3"]
    own = {"SECONDS_A_BATCH": str(seconds), "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [*command, "--checkpoint_every_n_steps=2", *options],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | own | environment,
        # Where tests run in the background the shell has them, and so their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_checkpoint(process, directory):
    while not (found := list(directory.rglob("last.ckpt"))):
        assert process.poll() is None
        time.sleep(0.1)
    return RunDirectory(found[0].parents[1])


def end(process, number, run):
    """Sends the signal; the exit status, what was said. The checkpoint is complete within seconds."""
    sent = time.time()
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    saved, ended = run.last_checkpoint.with_name("last.ckpt.json").stat().st_mtime - sent, time.time() - sent
    print(f"{number.name}: saved after {saved:.1f} s, ended after {ended:.1f} s")
    # A batch takes half a second. To leave takes Python seconds of a processor, of which a busy machine has less.
    assert 0 < saved < 10
    assert ended < 60
    return process.returncode, errors


def test_an_element_of_an_array_is_requeued_and_goes_on_in_a_directory_of_its_own(tmp_path, tiny, reviews, monkeypatch):
    asked = fake_scontrol(tmp_path, monkeypatch)
    element = SLURM | {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "2"}
    process = start(tmp_path, tiny, reviews, 0.5, "--seed_everything=2", **element)
    run = wait_for_checkpoint(process, tmp_path)
    status, errors = end(process, signal.SIGUSR1, run)
    assert status == 75
    assert asked.read_text() == "requeue 4711_2\n"
    assert "Job 4711_2 is requeued." in errors
    assert run.path.name == "seed2"
    assert [path.name for path in tmp_path.glob("runs/*/*/*/*")] == ["seed2"]
    at = torch.load(run.last_checkpoint, weights_only=True)["global_step"]
    assert f"Stopped by SIGUSR1 at step {at}" in errors
    again = start(tmp_path, tiny, reviews, 0, "--seed_everything=2", **element)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert run.read_result()["status"] == "done"
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 36
    assert len([row for row in rows_of(run.metrics) if row["val/accuracy"]]) == 3
    assert list(tmp_path.rglob("hpc_ckpt*")) == []


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_two_processes_stop_after_the_same_step_when_one_is_told(tmp_path, tiny, reviews, number, status):
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--run_dir={tmp_path / 'run'}"]
    process = start(tmp_path, tiny, reviews, 0.5, *two)
    run = wait_for_checkpoint(process, tmp_path)
    found, errors = end(process, number, run)
    assert found == status, errors
    assert errors.count(f"Stopped by {number.name} at step ") == 1
    assert run.read_result()["status"] == "interrupted"
    again = start(tmp_path, tiny, reviews, 0, *two)
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert run.read_result()["status"] == "done"
