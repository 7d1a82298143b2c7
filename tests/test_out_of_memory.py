"""A run that is out of memory says so, with what would help, and may try again with half the batch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from dying import has_ended, wait_for
from small_files import rows_of

from peft_lightning.methods import Houlsby
from peft_lightning.runs import RunDirectory

HALVE = "--halve_batch_if_out_of_memory=true"
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB.\nSee documentation"


def cuda():
    raise torch.OutOfMemoryError(CUDA)


def failing(monkeypatch, allocate, fails):
    """Allocates before each training step for which `fails(method, rows)` is true; the rows of all other steps."""
    original, rows = Houlsby.training_step, {}

    def training_step(self, batch, batch_idx):
        size = len(batch["labels"])
        if fails(self, size):
            allocate()
        rows.setdefault(self.trainer.global_step, []).append(size)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Houlsby, "training_step", training_step)
    return rows


def status_of(fit, *arguments, **options):
    with pytest.raises(SystemExit) as stop:
        fit(*arguments, **options)
    return stop.value.code


@pytest.mark.parametrize(
    ("allocate", "said"),
    [
        (lambda: torch.empty(10**15), "DefaultCPUAllocator: can't allocate memory"),
        (lambda: np.empty(10**15), "Unable to allocate"),
        (cuda, "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB."),
    ],
    ids=["torch", "numpy", "cuda"],
)
def test_it_is_named_with_the_peak_and_with_what_would_help(fit, tmp_path, monkeypatch, capsys, allocate, said):
    failing(monkeypatch, allocate, lambda method, rows: method.global_step == 3)
    assert status_of(fit, tmp_path / "run") == 4
    sentence = capsys.readouterr().err.splitlines()[-1]
    result = RunDirectory(tmp_path / "run").read_result()
    assert result["status"] == "oom"
    assert sentence == f"peft-lightning: error: {result['error']}"
    assert "Out of memory at step 3: " in sentence
    assert said in sentence
    assert f"Peak of this process: {result['peak_memory_bytes'] / 2**20:,.0f} MiB" in sentence
    for option in (
        "--data.batch_size 4 (it is 8) with --trainer.accumulate_grad_batches 2",
        HALVE.replace("=", " "),
        "--data.max_length (it is 16)",
        "--model.gradient_checkpointing true",
        "--trainer.precision bf16-mixed",
    ):
        assert option in sentence


def test_the_batch_is_halved_until_it_fits_and_a_step_sees_as_many_rows(fit, tmp_path, monkeypatch, caplog):
    """12 steps an epoch of 8 rows each; 3 rows at once are too many, and so are 4 and 8."""
    rows = failing(monkeypatch, cuda, lambda method, rows: rows > 3)
    run = RunDirectory(fit(tmp_path / "run", HALVE, "--trainer.val_check_interval=6"))
    assert rows == {step: [2, 2, 2, 2] for step in range(24)}
    result = run.read_result()
    assert result["status"] == "done"
    assert "error" not in result
    assert result["used"] == {"batch_size": 2, "accumulate_grad_batches": 4}
    config = yaml.safe_load(run.config.read_text())
    assert config["data"]["init_args"]["batch_size"] == 8
    assert config["trainer"]["accumulate_grad_batches"] == 1
    assert [int(row["step"]) for row in rows_of(run.metrics) if row["val/accuracy"]] == [5, 11, 17, 23]
    assert caplog.text.count("Trying again with half the batch.") == 2
    assert "each batch of 8 is trained as 4 of 2 (accumulate_grad_batches 4)" in caplog.text


def test_a_run_with_halves_goes_on_with_them(fit, tmp_path, monkeypatch):
    rows = failing(monkeypatch, cuda, lambda method, rows: rows > 4)
    with monkeypatch.context() as context:
        epoch_end = Houlsby.on_validation_epoch_start
        context.setattr(
            Houlsby, "on_validation_epoch_start", lambda self: (epoch_end(self), _stop_in_training(self))[0]
        )
        assert status_of(fit, tmp_path / "run", HALVE) == 143
    before = dict(rows)
    rows.clear()
    run = RunDirectory(fit(tmp_path / "run", HALVE))
    assert before == {step: [4, 4] for step in range(12)}
    assert rows == {step: [4, 4] for step in range(12, 24)}
    assert run.read_result()["used"] == {"batch_size": 4, "accumulate_grad_batches": 2}


def _stop_in_training(method):
    if not method.trainer.sanity_checking:
        os.kill(os.getpid(), signal.SIGTERM)


def test_no_batch_is_halved_unless_asked_for(fit, tmp_path, monkeypatch):
    failing(monkeypatch, cuda, lambda method, rows: rows > 4)
    assert status_of(fit, tmp_path / "run") == 4
    assert "used" not in RunDirectory(tmp_path / "run").read_result()


@pytest.mark.parametrize(
    ("size", "options", "fails", "reason"),
    [
        (6, [], lambda method, rows: rows > 2, "it is 3"),
        (
            8,
            ["--checkpoint_every_n_steps=2"],
            lambda method, rows: method.global_step == 3,
            "batches of this size already",
        ),
    ],
)
def test_a_batch_that_cannot_be_halved_ends_the_run(fit, tmp_path, monkeypatch, capsys, size, options, fails, reason):
    failing(monkeypatch, cuda, fails)
    assert status_of(fit, tmp_path / "run", HALVE, f"--data.batch_size={size}", *options) == 4
    assert f"The batch cannot be halved: {reason}" in capsys.readouterr().err.replace("the run has trained ", "")
    assert RunDirectory(tmp_path / "run").read_result()["status"] == "oom"


def test_a_run_that_goes_on_from_a_checkpoint_of_another_run_keeps_its_batches(fit, tmp_path, monkeypatch, capsys):
    earlier, run = RunDirectory(fit(tmp_path / "earlier", epochs=1)), RunDirectory(tmp_path / "run")
    failing(monkeypatch, cuda, lambda method, rows: rows > 4)
    assert status_of(fit, run.path, HALVE, f"--ckpt_path={earlier.last_checkpoint}") == 4
    assert "The batch cannot be halved: the run has trained batches of this size already" in capsys.readouterr().err
    assert not run.last_checkpoint.exists()


@pytest.mark.parametrize("size", [1, 7])
def test_halves_of_an_odd_batch_are_refused_at_once(fit, tmp_path, capsys, size):
    assert status_of(fit, tmp_path / "run", HALVE, f"--data.batch_size={size}") == 1
    assert f"batch_size is {size}, which has no half" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_evaluation_without_memory_leaves_the_run_as_it_is(fit, tmp_path, monkeypatch, refused):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    before = run.result.read_text()
    monkeypatch.setattr(Houlsby, "test_step", lambda *arguments: cuda())
    sentence = refused(["test", run.path, "--trainer.enable_progress_bar=false"], status=4)
    assert "These would help: --data.batch_size 4 (it is 8); a smaller --data.max_length" in sentence
    assert "gradient_checkpointing" not in sentence
    assert run.result.read_text() == before


# On one of two processes a step has too little memory; the other one waits for it, in a way that may find out.
ON_ONE_PROCESS = """
import os, sys, time
import torch
from peft_lightning.cli import main
from peft_lightning.methods import LoRA

original = LoRA.training_step

def training_step(self, batch, batch_idx):
    if self.global_rank == 1:
        with open(os.environ["PID"], "w") as file:
            file.write(str(os.getpid()))
    if batch_idx == int(os.environ["FAILS_AT"]):
        if self.global_rank == int(os.environ["FAILS_ON"]):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        time.sleep(float(os.environ["OTHER_SLEEPS"]))
    return original(self, batch, batch_idx)

LoRA.training_step = training_step
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("fails_on", "fails_at", "sleeps", "status"),
    [
        (1, 0, 0, 4),
        # As one that waits for a GPU: only SIGKILL ends it, which Lightning sends within 5 seconds.
        pytest.param(1, 2, 200, -signal.SIGKILL, marks=pytest.mark.long),
        pytest.param(0, 2, 200, 4, marks=pytest.mark.long),
    ],
)
def test_one_process_of_two_without_memory_ends_both(tmp_path, tiny, reviews, fails_on, fails_at, sleeps, status):
    script, run, pid = tmp_path / "one.py", RunDirectory(tmp_path / "run"), tmp_path / "pid"
    script.write_text(ON_ONE_PROCESS, encoding="utf-8")
    options = [f"--model.backbone={tiny()}", "--data=TextClassification", f"--data.source={reviews}", HALVE]
    options += ["--data.max_length=16", "--data.batch_size=4", f"--run_dir={run.path}", "--trainer.max_epochs=1"]
    options += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.devices=2"]
    own = {"PYTHONPATH": str(Path(__file__).parents[1]), "PID": str(pid), "FAILS_ON": str(fails_on)}
    own |= {"FAILS_AT": str(fails_at), "OTHER_SLEEPS": str(sleeps)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), "fit", "--model=LoRA", "--trainer.strategy=ddp", *options],
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        env=os.environ | own,
    )
    assert done.returncode == status, done.stderr
    assert time.monotonic() - began < 150
    result = run.read_result()
    assert result["status"] == "oom"
    assert result["error"].startswith(f"Out of memory at step {fails_at}: CUDA out of memory.")
    assert done.stderr.count("peft-lightning: error: Out of memory") == 1
    assert "The batch cannot be halved: there are several processes" in done.stderr
    assert "Traceback" not in done.stderr
    wait_for(lambda: has_ended(int(pid.read_text())), seconds=30)
