"""A run that is stopped, wherever that is, and goes on ends bit-equal to one that never was."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from stopped_fit import PowerFailure, stopping

from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory

SCRIPT = Path(__file__).parent / "stopped_fit.py"
# 11 shuffled batches of similar length an epoch, the last of them smaller; dropout; validation inside and at the end of
# an epoch; a row of metrics for every second optimizer step.
OPTIONS = (
    "--data.batch_size=9",
    "--model.lr=3e-2",
    "--trainer.max_epochs=2",
    "--trainer.val_check_interval=4",
    "--trainer.log_every_n_steps=2",
    "--trainer.num_sanity_val_steps=0",
)
WINDOWS = "--trainer.accumulate_grad_batches=2"
# Each moment is a hook and which of its calls. With windows of two batches, `last.ckpt` is written there and then.
SAVED = {
    "first batch": ("on_after_backward", 1),
    "inside a window": ("on_train_batch_end", 3),
    "before the optimizer": ("on_before_optimizer_step", 2),
    "behind the optimizer": ("on_train_batch_end", 4),
    "inside a validation": ("on_validation_batch_end", 2),
    "end of a validation": ("on_validation_end", 1),
    "behind a validation": ("on_train_batch_start", 5),
    "mid-epoch": ("on_train_batch_end", 6),
    "last batch of an epoch": ("on_train_batch_end", 11),
    "validation of an epoch": ("on_validation_batch_end", 8),
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
            process = subprocess.run if any("ddp" in option for option in options) else None
            if process:
                command = [sys.executable, "-m", "peft_lightning"]
                process([*command, *arguments(made[options].path, *options)], check=True, timeout=600)
            else:
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


def test_a_run_that_is_stopped_again_and_again_ends_as_one_that_is_not(arguments, straight, tmp_path):
    run = RunDirectory(tmp_path / "run")
    done = 0
    for name in ("first batch", "inside a window", "inside a validation", "behind a validation", "validation of an epoch"):
        hook, number = SAVED[name]
        with stopping(hook, number - done), pytest.raises(PowerFailure):
            main(arguments(run.path, WINDOWS))
    main(arguments(run.path, WINDOWS))
    assert_bit_equal(run, straight(WINDOWS))


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2], ids=["alone", "workers"])
@pytest.mark.parametrize("windows", [(), (WINDOWS,)], ids=["steps", "windows"])
@pytest.mark.parametrize("moment", SAVED)
def test_a_checkpoint_of_any_moment(moment, windows, workers, arguments, straight, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with stopping(*SAVED[moment]), pytest.raises(PowerFailure):
        main(arguments(run.path, *windows, f"--data.num_workers={workers}"))
    main(arguments(run.path, *windows, f"--data.num_workers={workers}"))
    assert_bit_equal(run, straight(*windows))
