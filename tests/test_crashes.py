"""Runs whose process, disk or files fail: what is wrong is said, and nothing that was saved is lost."""

import errno
import os
import resource
import shutil
import signal
import time

import pytest
import torch
from dying import fork, random_moments, wait_for

import peft_lightning
from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory
from peft_lightning.storage.generations import manifest_path, previous_path, step_of

QUIET = "--trainer.enable_progress_bar=false"


def stops_at(monkeypatch, step):
    original = peft_lightning.methods.Houlsby.training_step

    def stops(self, batch, batch_idx):
        if self.trainer.global_step == step:
            raise RuntimeError("power failure")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(peft_lightning.methods.Houlsby, "training_step", stops)


def scores(*values):
    """An evaluation that gives these validation scores, one an epoch, and a test score."""

    def evaluate(self, stage, scores, batch):
        self.log(f"{stage}/accuracy", values[min(self.current_epoch, len(values) - 1)])

    return evaluate


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory):
    """Filled by the first test that needs it."""
    return tmp_path_factory.mktemp("broken_off") / "run"


@pytest.fixture
def run(broken_off, fit, tmp_path, monkeypatch):
    """A run of 3 epochs of 12 steps whose third epoch broke off: saved after the steps 12 and 24, the later better."""
    if not broken_off.exists():
        with monkeypatch.context() as failing:
            stops_at(failing, 30)
            failing.setattr(peft_lightning.methods.Houlsby, "_evaluate", scores(0.1, 0.2))
            with pytest.raises(RuntimeError, match="power failure"):
                fit(broken_off, epochs=3)
    shutil.copytree(broken_off, tmp_path / "run")
    found = RunDirectory(tmp_path / "run")
    for path in (found.last_checkpoint, found.best_checkpoint):
        assert [step_of(path), step_of(previous_path(path))] == [24, 12]
    return found


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:700]),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "missing": lambda path: path.unlink(),
    "without a manifest": lambda path: manifest_path(path).unlink(),
}


# Each of them in its own right: tests/storage/test_generations.py.
@pytest.mark.parametrize("damage", ["flipped", "missing", "without a manifest"])
def test_a_run_goes_on_from_the_generation_before_a_damaged_one_and_says_so(run, fit, capsys, caplog, damage):
    DAMAGES[damage](run.last_checkpoint)
    kept = run.last_checkpoint.read_bytes() if run.last_checkpoint.exists() else None
    fit(run.path, epochs=3)
    assert str(run.last_checkpoint) in caplog.text
    assert f"Going on from {previous_path(run.last_checkpoint)}, step 12" in capsys.readouterr().out
    assert run.read_result()["status"] == "done"
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 36
    if kept is not None:
        assert (run.checkpoints / "last.rejected.ckpt").read_bytes() == kept


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew(run, fit, capsys):
    flip(run.last_checkpoint)
    previous_path(run.last_checkpoint).write_bytes(b"")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        fit(run.path, epochs=3)
    assert stop.value.code == 1
    sentence = capsys.readouterr().err
    assert f"{run.last_checkpoint} is damaged (its sha256" in sentence
    assert f"{previous_path(run.last_checkpoint)} is empty" in sentence
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_first_save_that_was_interrupted_before_its_manifest_is_not_lost(run, fit, capsys, caplog):
    """Nothing proves the file but the checksums in it."""
    previous_path(run.last_checkpoint).unlink()
    for path in (run.last_checkpoint, previous_path(run.last_checkpoint)):
        manifest_path(path).unlink()
    fit(run.path, epochs=3)
    assert "has no manifest to prove it" in caplog.text
    assert f"Going on from {run.last_checkpoint}, step 24" in capsys.readouterr().out


def test_a_full_disk_ends_the_run_with_the_file_and_the_cause(run, fit, capsys):
    """The file of the optimizer's state finds no room any more, the smaller ones do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = run.last_checkpoint.stat().st_size
    assert run.best_checkpoint.stat().st_size < size / 2
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(SystemExit) as stop:
            fit(run.path, epochs=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stop.value.code == 1
    assert f"{run.last_checkpoint} cannot be written ({os.strerror(errno.EFBIG)})" in capsys.readouterr().err
    assert run.read_result()["status"] == "failed"
    fit(run.path, epochs=3)
    assert f"Going on from {run.last_checkpoint}, step 24" in capsys.readouterr().out
    assert run.is_done


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_an_older_best_checkpoint_is_never_evaluated_silently(run, refused, capsys, damage):
    best, previous = run.best_checkpoint, previous_path(run.best_checkpoint)
    before = run.read_result()
    DAMAGES[damage](best)
    for verb in ("test", "validate", "predict"):
        sentence = refused([verb, run.path, QUIET])
        assert f"Checkpoint {best} cannot be read (it " in sentence
        assert f"of step {step_of(previous)}, is whole; to take that one give --ckpt_path {previous}" in sentence
    main(["test", str(run.path), f"--ckpt_path={previous}", QUIET])
    assert "Not recorded" in capsys.readouterr().out
    assert run.read_result() == before


def test_a_damaged_best_checkpoint_is_chosen_anew_when_the_run_goes_on(run, fit, monkeypatch, caplog):
    """From worse scores than that of the lost weights, which no file has any more."""
    monkeypatch.setattr(peft_lightning.methods.Houlsby, "_evaluate", scores(0.15))
    flip(run.best_checkpoint)
    previous_path(run.best_checkpoint).unlink(missing_ok=True)
    fit(run.path, epochs=3)
    assert f"{run.best_checkpoint} is damaged" in caplog.text
    assert "chosen anew" in caplog.text
    assert step_of(run.best_checkpoint) == 36
    main(["test", str(run.path), QUIET])


def test_a_best_checkpoint_of_steps_that_are_lost_gives_way_to_the_one_before(run, fit, monkeypatch, caplog):
    """The weights after step 24 scored best; then the checkpoint of step 24 is lost, and no later score is as good."""
    wanted = previous_path(run.best_checkpoint).read_bytes()
    flip(run.last_checkpoint)
    monkeypatch.setattr(peft_lightning.methods.Houlsby, "_evaluate", scores(0.0))
    fit(run.path, epochs=3)
    assert "is again that of step 12" in caplog.text
    assert run.best_checkpoint.read_bytes() == wanted
    assert run.read_result()["metrics"]["val/accuracy"] == pytest.approx(0.1)


def test_leftovers_of_killed_processes_are_removed(run, fit):
    left = [run.checkpoints / ".77.last.ckpt.partial", run.path / ".77.result.json.partial"]
    for path in left:
        path.write_bytes(b"half")
    fit(run.path, epochs=3)
    assert list(run.path.rglob(".*")) == []
    assert not run.lock.exists()


@pytest.fixture
def in_use(run):
    """The run, while another process holds it."""

    def hold():
        with run.claimed():
            time.sleep(600)

    pid = fork(hold)
    try:
        wait_for(run.lock.exists)
        yield run, pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_second_process_on_a_run_is_refused(in_use, fit, refused, capsys):
    run, pid = in_use
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        fit(run.path, epochs=3)
    assert stop.value.code == 1
    assert f"{run.path} is in use by process {pid}" in capsys.readouterr().err
    for verb in ("test", "validate", "predict"):
        assert f"{run.path} is in use by process {pid}" in refused([verb, run.path, QUIET])
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_what_writes_nothing_into_a_run_may_look_at_it_while_it_is_trained(in_use, tmp_path, capsys):
    run, _ = in_use
    main(["test", str(run.path), f"--ckpt_path={run.best_checkpoint}", QUIET])
    assert "Not recorded" in capsys.readouterr().out
    (tmp_path / "t.txt").write_text("a film\n")
    main(["predict", str(run.path), "--input", str(tmp_path / "t.txt"), "--output", str(tmp_path / "o.jsonl")])
    assert (tmp_path / "o.jsonl").is_file()
    main(["summary", str(run.path)])


def test_other_processes_of_the_same_run_are_not_refused(in_use, fit, monkeypatch):
    """Under torchrun and SLURM each process is the whole command; all but the first leave the lock alone."""
    run, _ = in_use
    for set_rank in (
        lambda m: m.setattr("lightning.pytorch.utilities.rank_zero_only.rank", 1),
        lambda m: m.setenv("NODE_RANK", "1"),
    ):
        with monkeypatch.context() as context:
            set_rank(context)
            context.setattr(peft_lightning.run_cli.CLI, "before_fit", lambda self: (_ for _ in ()).throw(EOFError))
            with pytest.raises(EOFError):
                fit(run.path, epochs=3)


def test_a_run_is_free_again_after_an_error_and_after_a_signal(run, fit, monkeypatch):
    with monkeypatch.context() as failing:
        stops_at(failing, 26)
        with pytest.raises(RuntimeError, match="power failure"):
            fit(run.path, epochs=3)
    assert not run.lock.exists()
    pid = fork(lambda: fit(run.path, "--trainer.max_epochs=3"))
    wait_for(lambda: run.lock.exists() and run.read_result()["status"] == "running")
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    assert not run.lock.exists()


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.long)])
def test_a_run_that_is_killed_again_and_again_never_begins_anew(fit, tiny, tmp_path, monkeypatch, kills):
    """Killed at random moments of training with a checkpoint after each step."""
    tiny()  # made here, so that every child finds the same
    monkeypatch.setenv("TMPDIR", "/dev/shm" if os.path.isdir("/dev/shm") else str(tmp_path))
    run = RunDirectory(tmp_path / "run")
    options = ["--checkpoint_every_n_steps=1", "--trainer.max_steps=4000"]
    step = 0
    for moment in random_moments(kills, 1.0):
        pid = fork(lambda: fit(run.path, *options, epochs=-1))
        while (seen := step_of(run.last_checkpoint) or 0) <= step:  # it has gone on
            time.sleep(0.01)
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(moment)
        committed = max(seen, step_of(run.last_checkpoint) or 0)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        newest, _ = run.newest_checkpoint()
        reached = torch.load(newest, weights_only=True)["global_step"]
        assert reached >= committed > step
        step = reached
    print(f"{kills} kills of a run, the last after step {step}; none lost a checkpoint")
