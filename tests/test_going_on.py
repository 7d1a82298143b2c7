"""Runs that end, are interrupted, go on, or begin from others."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from small_files import rows_of

import peft_lightning
from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory


def test_a_run_begun_from_another_runs_checkpoint_stands_on_its_own(fit, tmp_path):
    first = RunDirectory(fit(tmp_path / "first", epochs=1))
    second = RunDirectory(fit(tmp_path / "second", f"--ckpt_path={first.last_checkpoint}", epochs=2))
    assert second.best_checkpoint.is_file()
    assert yaml.safe_load(second.config.read_text())["ckpt_path"] is None
    shutil.rmtree(first.path)
    main(["test", str(second.path), "--trainer.enable_progress_bar=false"])
    assert "test/accuracy" in second.read_result()["metrics"]


def test_a_run_that_was_moved_keeps_its_best_checkpoint(fit, tmp_path, monkeypatch):
    """With scores of 1, 1/2 and 1/3, and moved after the first, the later weights must not replace the best."""
    original = peft_lightning.methods.Houlsby.training_step

    def stops(self, batch, batch_idx):
        if self.trainer.global_step == 16:
            raise RuntimeError("power failure")
        return original(self, batch, batch_idx)

    def worse_and_worse(self, stage, scores, batch):
        self.log("val/accuracy", 1.0 / (self.current_epoch + 1))

    monkeypatch.setattr(peft_lightning.methods.Houlsby, "_evaluate", worse_and_worse)
    with monkeypatch.context() as failing:
        failing.setattr(peft_lightning.methods.Houlsby, "training_step", stops)
        with pytest.raises(RuntimeError, match="power failure"):
            fit(tmp_path / "run", epochs=3)
    best = RunDirectory(tmp_path / "run").best_checkpoint.read_bytes()
    (tmp_path / "run").rename(tmp_path / "moved")
    run = RunDirectory(fit(tmp_path / "moved", epochs=3))
    assert run.best_checkpoint.read_bytes() == best
    assert run.read_result()["metrics"]["val/accuracy"] == 1.0


def test_a_time_limit_stops_a_run_and_a_longer_one_goes_on(fit, tmp_path, monkeypatch):
    run = RunDirectory(fit(tmp_path / "run", "--trainer.max_time=00:00:00:01", epochs=12))
    assert run.read_result()["status"] == "stopped"
    fit(run.path, "--trainer.max_time=00:00:10:00", epochs=12)
    assert run.read_result()["status"] == "done"
    assert len([row for row in rows_of(run.metrics) if row["val/accuracy"]]) == 12


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_with_its_exit_status_and_the_same_command_goes_on(fit, tmp_path, tiny, reviews, number, status):
    run = RunDirectory(tmp_path / "run")
    options = [f"--model.backbone={tiny()}", "--data=TextClassification", f"--data.source={reviews}"]
    options += ["--data.max_length=16", f"--run_dir={run.path}", "--trainer.enable_progress_bar=false"]
    command = [sys.executable, "-m", "peft_lightning", "fit", "--model=LoRA", *options, "--trainer.max_epochs=2000"]
    process = subprocess.Popen(
        [*command, "--trainer.accelerator=cpu"],
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background the shell has them, and so their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        while not run.last_checkpoint.is_file():
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert "the same command goes on" in errors
    result = run.read_result()
    assert result["status"] == "interrupted"
    assert "val/accuracy" in result["metrics"]


def test_the_last_checkpoint_is_that_of_the_end(fit, tmp_path):
    for every in (100, 7):
        run = RunDirectory(fit(tmp_path / str(every), f"--checkpoint_every_n_steps={every}"))
        assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 24


def test_the_same_command_says_that_the_run_is_done(fit, tmp_path, capsys):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    capsys.readouterr()
    fit(run.path, epochs=1)
    assert "is done already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()} == before


def test_the_same_command_goes_on_after_an_interruption(fit, tmp_path, monkeypatch):
    """Stopped in the second epoch, the run goes on from the end of the first and keeps its earlier metrics."""
    run, straight = RunDirectory(tmp_path / "run"), RunDirectory(fit(tmp_path / "straight", epochs=3))
    original = peft_lightning.methods.Houlsby.training_step

    def stops(self, batch, batch_idx):
        if self.trainer.global_step == 16:
            raise RuntimeError("power failure")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(peft_lightning.methods.Houlsby, "training_step", stops)
    with pytest.raises(RuntimeError, match="power failure"):
        fit(run.path, epochs=3)
    assert run.read_result()["status"] == "failed"
    assert "power failure" in run.read_result()["error"]
    first = run.read_environment()
    monkeypatch.undo()
    fit(run.path, epochs=3)
    assert run.read_environment()["started"] == first["started"]
    assert len(run.read_environment()["restarts"]) == 1
    result = run.read_result()
    assert result["status"] == "done"
    assert "error" not in result
    validations = [int(row["step"]) for row in rows_of(run.metrics) if row["val/accuracy"]]
    assert validations == [int(row["step"]) for row in rows_of(straight.metrics) if row["val/accuracy"]] == [11, 23, 35]


def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(fit, tmp_path):
    def numbers(name, *options):
        run = RunDirectory(fit(tmp_path / name, *options))
        return run.read_result()["metrics"], run.metrics.read_text()

    first = numbers("a")
    assert numbers("b") == first
    assert numbers("c", "--seed_everything=1") != first


def test_a_run_without_validation_keeps_its_last_weights(fit, tmp_path):
    run = RunDirectory(fit(tmp_path / "run", "--trainer.limit_val_batches=0"))
    best, last = (torch.load(path, weights_only=True) for path in (run.best_checkpoint, run.last_checkpoint))
    assert all(torch.equal(tensor, last["state_dict"][name]) for name, tensor in best["state_dict"].items())
    assert run.read_result()["status"] == "done"


def test_a_trial_of_one_batch_leaves_no_result(fit, tmp_path):
    run = fit(tmp_path / "run", "--trainer.fast_dev_run=true")
    assert list(run.rglob("*")) == []


def test_a_random_seed_is_recorded(fit, tmp_path):
    seed = RunDirectory(fit(tmp_path / "run", "--seed_everything=true", epochs=1)).read_result()["seed"]
    assert isinstance(seed, int)
    assert not isinstance(seed, bool)
