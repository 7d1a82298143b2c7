"""A run that is stopped, wherever that is, and goes on ends bit-equal to one that never was."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import SingleDeviceStrategy
from stopped_fit import PowerFailure, acting, copy, save, stopping

from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory

SCRIPT = Path(__file__).parent / "stopped_fit.py"
# 11 shuffled batches of similar length an epoch, the last of them smaller; dropout; a row of metrics for every second
# optimizer step.
OPTIONS = (
    "--data.batch_size=9",
    "--model.lr=3e-2",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=2",
    "--trainer.num_sanity_val_steps=0",
)
WINDOWS = ("--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=4")
KINDS = {
    "validation at the end of epochs": (),
    "validation inside epochs": ("--trainer.val_check_interval=4",),
    "windows of two batches": WINDOWS,
    "a number of steps": (*WINDOWS, "--trainer.max_steps=12", "--trainer.check_val_every_n_epoch=null"),
}
# A moment is a hook and which of its calls. `last.ckpt` is written there and then.
MOMENTS = {
    "first batch": ("on_after_backward", 1),
    "third batch": ("on_train_batch_end", 3),
    "before the optimizer": ("on_before_optimizer_step", 2),
    "fourth batch": ("on_train_batch_end", 4),
    "inside a validation": ("on_validation_batch_end", 2),
    "end of a validation": ("on_validation_end", 1),
    "behind a validation": ("on_train_batch_start", 5),
    "mid-epoch": ("on_train_batch_end", 6),
    "last batch of an epoch": ("on_train_batch_end", 11),
    "second validation": ("on_validation_batch_end", 5),
    "end of an epoch": ("on_train_epoch_end", 1),
    "start of an epoch": ("on_train_epoch_start", 2),
    "first batch of an epoch": ("on_train_batch_end", 12),
    "second epoch": ("on_train_batch_end", 18),
    "last batch": ("on_train_batch_end", 22),
    "end": ("on_train_epoch_end", 2),
}
# Here the run goes on from the last checkpoint that `--checkpoint_every_n_steps=2` wrote before.
UNSAVED = {
    "before any checkpoint": ("on_train_batch_end", 2),
    "inside a window": ("on_after_backward", 6),
    "inside a validation": ("on_validation_batch_start", 5),
    "second epoch": ("on_before_optimizer_step", 9),
}
# On two devices an epoch has 7 batches on each, and a validation 2.
SMALLER = ("--model=stopped_fit.EpochLogging", "--data.batch_size=7")
KINDS_OF_TWO = KINDS | {"a number of steps": (*KINDS["a number of steps"], "--trainer.max_steps=8")}
MOMENTS_OF_TWO = MOMENTS | {
    "second validation": ("on_validation_batch_end", 3),
    "last batch of an epoch": ("on_train_batch_end", 7),
    "first batch of an epoch": ("on_train_batch_end", 8),
    "second epoch": ("on_train_batch_end", 10),
    "last batch": ("on_train_batch_end", 14),
}
TWO_DEVICES = ("--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.fixture(scope="session")
def arguments(tiny, reviews):
    def of(run_dir, *options):
        return [
            "fit",
            "--model=Houlsby",
            f"--model.backbone={tiny()}",
            "--data=TextClassification",
            f"--data.source={reviews}",
            "--data.max_length=16",
            f"--run_dir={run_dir}",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            *OPTIONS,
            *options,
        ]

    return of


@pytest.fixture(scope="session")
def straight(arguments, tmp_path_factory):
    """`straight(*options)` is the run with these options that nothing stops; each is made once."""
    made = {}

    def run(*options):
        if options not in made:
            made[options] = RunDirectory(tmp_path_factory.mktemp("straight"))
            main(arguments(made[options].path, *options))
        return made[options]

    return run


def assert_same(one, other, where="checkpoint"):
    """Equal bit by bit, down to every tensor."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}.{number}")
    else:
        assert one == other, where


def assert_bit_equal(run, straight):
    """Weights, optimizer, schedule, random states, place and all rows of metrics of two finished runs."""
    for file in ("last_checkpoint", "best_checkpoint"):
        one, other = (torch.load(getattr(of, file), weights_only=True) for of in (run, straight))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "exact_resume"):
            assert (part in one) == (part in other)
            assert_same(one.get(part), other.get(part), f"{file}.{part}")
    assert run.metrics.read_text() == straight.metrics.read_text()
    assert run.read_result()["metrics"] == straight.read_result()["metrics"]
    assert run.read_result()["status"] == straight.read_result()["status"] == "done"


def stopped_and_gone_on(arguments, moment, *options, saving=True):
    hook, number = moment
    with stopping(hook, number, saving), pytest.raises(PowerFailure):
        main(arguments(*options))
    main(arguments(*options))


def run_script(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], timeout=600, check=False).returncode


def on_two_devices(directory, *starts):
    (directory / "starts.json").write_text(json.dumps(starts), encoding="utf-8")
    assert run_script(SCRIPT.with_name("several_commands.py"), directory / "starts.json") == 0


def test_a_run_that_is_stopped_again_and_again_ends_as_one_that_is_not(arguments, straight, tmp_path):
    run = RunDirectory(tmp_path / "run")
    for hook, number in (
        ("on_after_backward", 1),  # in the first batch
        ("on_train_batch_end", 3),  # inside a window: its first batch is trained again
        ("on_validation_batch_end", 2),  # behind the fourth batch
        ("on_train_batch_start", 1),  # behind that validation
        ("on_train_epoch_end", 1),
        ("on_train_batch_end", 4),  # before its row of metrics and its validation
    ):
        with stopping(hook, number), pytest.raises(PowerFailure):
            main(arguments(run.path, *WINDOWS))
    main(arguments(run.path, *WINDOWS))
    assert_bit_equal(run, straight(*WINDOWS))


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(4, id="with a validation"),
        pytest.param(6, id="at the end of an epoch", marks=pytest.mark.long),
        pytest.param(8, id="in the next epoch", marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_stopped_behind_its_last_step_does_what_is_left(steps, arguments, straight, tmp_path):
    options = ("--model=stopped_fit.EpochLogging", *WINDOWS, f"--trainer.max_steps={steps}")
    options = (*options, "--trainer.check_val_every_n_epoch=null")
    run, batches = RunDirectory(tmp_path / "run"), {4: 8, 6: 11, 8: 15}[steps]
    for moment in (("on_train_batch_end", batches), ("on_train_epoch_end", 1)):
        with stopping(*moment), pytest.raises(PowerFailure):
            main(arguments(run.path, *options))
    main(arguments(run.path, *options))
    assert_bit_equal(run, straight(*options))


def test_a_killed_process_goes_on_in_another_with_other_workers(arguments, straight, tmp_path):
    run = RunDirectory(tmp_path / "run")
    options = arguments(run.path, *WINDOWS, "--data.num_workers=2", "--checkpoint_every_n_steps=2")
    assert run_script(SCRIPT, "on_after_backward", 8, "as it is", *options) == -9
    assert torch.load(run.last_checkpoint, weights_only=True)["exact_resume"]["place"]["batches"] == 4
    main(arguments(run.path, *WINDOWS))
    assert_bit_equal(run, straight(*WINDOWS))


def test_two_processes_go_on(arguments, tmp_path):
    straight, run = RunDirectory(tmp_path / "straight"), RunDirectory(tmp_path / "run")
    one, other = ({"command": arguments(each.path, *WINDOWS, *SMALLER)} for each in (straight, run))
    on_two_devices(
        tmp_path,
        one,
        other | {"stop": MOMENTS["inside a validation"]},
        other | {"terminate": ("on_train_batch_end", 2)},
        other,
    )
    assert_bit_equal(run, straight)


@pytest.mark.parametrize("moment", [("on_train_batch_end", 7), ("on_train_batch_end", 11), ("on_train_epoch_end", 1)])
def test_what_is_counted_over_an_epoch_goes_on(moment, arguments, straight, tmp_path):
    run, options = RunDirectory(tmp_path / "run"), (*WINDOWS, "--model=stopped_fit.EpochLogging")
    stopped_and_gone_on(arguments, moment, run.path, *options)
    assert_bit_equal(run, straight(*options))
    assert all(run.metrics.read_text().split("\n", 1)[0].count(name) for name in ("mean", "max", "counted"))


def test_a_time_limit_changes_nothing(arguments, straight, tmp_path, monkeypatch):
    """The limit is reached at the seventh batch; the window to which it belongs is trained to its end."""
    run = RunDirectory(tmp_path / "run")
    asked = iter(range(100))
    with monkeypatch.context() as clock:
        clock.setattr(Timer, "time_remaining", lambda self: 3 - next(asked))
        main(arguments(run.path, *WINDOWS, "--trainer.max_time=00:00:00:01"))
    assert run.read_result()["status"] == "stopped"
    assert torch.load(run.last_checkpoint, weights_only=True)["exact_resume"]["place"]["batches"] == 6
    main(arguments(run.path, *WINDOWS))
    assert_bit_equal(run, straight(*WINDOWS))


@pytest.mark.parametrize("moment", [pytest.param("last batch of an epoch", marks=pytest.mark.long), "end of an epoch"])
def test_a_method_that_plans_over_all_steps_plans_the_same_again(moment, arguments, straight, tmp_path):
    run, options = RunDirectory(tmp_path / "run"), (*WINDOWS, "--model=AdaLoRA")
    stopped_and_gone_on(arguments, MOMENTS[moment], run.path, *options)
    assert_bit_equal(run, straight(*options))


def test_a_strategy_that_reads_the_checkpoint_late_goes_on_the_same(arguments, straight, tmp_path):
    """As FSDP and DeepSpeed do."""
    run, late = RunDirectory(tmp_path / "run"), mock.PropertyMock(return_value=True)
    with mock.patch.object(SingleDeviceStrategy, "restore_checkpoint_after_setup", late):
        stopped_and_gone_on(arguments, MOMENTS["end of an epoch"], run.path, *WINDOWS)
    assert_bit_equal(run, straight(*WINDOWS))


def test_fewer_epochs_than_the_checkpoint_has_are_refused(arguments, refused, straight, tmp_path):
    checkpoint = f"--ckpt_path={straight(*WINDOWS).last_checkpoint}"
    message = refused(arguments(tmp_path / "run", *WINDOWS, "--trainer.max_epochs=1", checkpoint))
    assert "current_epoch=2" in message
    assert "max_epochs=1" in message


def test_averages_of_the_model_are_refused(arguments, refused, tmp_path):
    message = refused(arguments(tmp_path / "run", "--trainer.callbacks=EMAWeightAveraging"))
    assert "EMAWeightAveraging keeps an average of the whole model" in message


def test_a_checkpoint_that_does_not_say_where_the_run_was_is_refused(arguments, refused, tmp_path, straight):
    checkpoint = torch.load(straight(*WINDOWS).last_checkpoint, weights_only=True)
    del checkpoint["exact_resume"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    message = refused(arguments(tmp_path / "run", f"--ckpt_path={tmp_path / 'old.ckpt'}"))
    assert "written by an earlier version" in message


@pytest.fixture(scope="session")
def copies(arguments, tmp_path_factory):
    """`copies(*options)` holds a run directory as it was when `last.ckpt` was written, at each of the moments."""
    made = {}

    def of(*options):
        if options not in made:
            made[options], run_dir = (tmp_path_factory.mktemp(name) for name in ("copies", "watched"))
            with acting(MOMENTS, partial(copy, made[options])):
                main(arguments(run_dir, *options))
        return made[options]

    return of


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2], ids=["alone", "workers"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_checkpoint_of_any_moment(moment, kind, workers, arguments, straight, copies, tmp_path):
    options = KINDS[kind]
    run = RunDirectory(shutil.copytree(copies(*options) / moment, tmp_path / "run"))
    main(arguments(run.path, *options, f"--data.num_workers={workers}"))
    assert_bit_equal(run, straight(*options))


@pytest.mark.long
@pytest.mark.parametrize("batch", [3, 4, 6, 11])
def test_a_checkpoint_of_the_moment_at_which_sigterm_ends_training(batch, arguments, straight, tmp_path):
    """Lightning raises behind the batch, and behind the validation that may follow it."""
    run = RunDirectory(tmp_path / "run")

    def act(trainer, name):
        os.kill(os.getpid(), signal.SIGTERM) if name == "signal" else save(trainer)

    moments = {"signal": ("on_train_batch_end", batch), "save": ("on_exception", 1)}
    with acting(moments, act), pytest.raises(SystemExit):
        main(arguments(run.path, *WINDOWS))
    main(arguments(run.path, *WINDOWS))
    assert_bit_equal(run, straight(*WINDOWS))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", UNSAVED)
def test_the_last_checkpoint_before_any_moment(moment, kind, arguments, straight, tmp_path):
    run, options = RunDirectory(tmp_path / "run"), (*KINDS[kind], "--checkpoint_every_n_steps=2")
    stopped_and_gone_on(arguments, UNSAVED[moment], run.path, *options, saving=False)
    assert_bit_equal(run, straight(*options))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["windows of two batches", "validation at the end of epochs"])
def test_two_processes_that_are_killed_go_on_in_two_others(kind, arguments, tmp_path):
    straight, options = RunDirectory(tmp_path / "straight"), (*KINDS[kind], *SMALLER)
    moments = ("third batch", "inside a validation", "end of an epoch", "second epoch")
    runs = [RunDirectory(tmp_path / moment) for moment in moments]
    for moment, run in zip(moments, runs, strict=True):
        command = arguments(run.path, *options, *TWO_DEVICES)
        assert run_script(SCRIPT, *MOMENTS_OF_TWO[moment], "saving", *command) == -9
    on_two_devices(tmp_path, *({"command": arguments(run.path, *options)} for run in (straight, *runs)))
    for run in runs:
        assert_bit_equal(run, straight)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS_OF_TWO)
def test_two_processes_go_on_from_a_checkpoint_of_any_moment(kind, arguments, tmp_path):
    straight, watched, *runs = (RunDirectory(tmp_path / name) for name in ("straight", "watched", *MOMENTS_OF_TWO))
    fits = {run: {"command": arguments(run.path, *KINDS_OF_TWO[kind], *SMALLER)} for run in (straight, watched, *runs)}
    copying = {"copies": str(tmp_path), "moments": MOMENTS_OF_TWO}
    on_two_devices(tmp_path, fits[straight], fits[watched] | copying)
    on_two_devices(tmp_path, *(fits[run] for run in runs))
    for run in runs:
        assert_bit_equal(run, straight)
