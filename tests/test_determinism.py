"""The same seed gives the same numbers, and what a run says of that."""

import os

import pytest
import torch

from peft_lightning.runs import RunDirectory


@pytest.fixture
def any_algorithms():
    """Puts back what `deterministic: true` sets in the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def numbers(run):
    checkpoint = torch.load(run.last_checkpoint, weights_only=True)
    return run.metrics.read_text(), {name: tensor.tolist() for name, tensor in checkpoint["state_dict"].items()}


def test_one_seed_gives_the_same_numbers_with_any_number_of_workers(fit, tmp_path, any_algorithms):
    options = ("--trainer.log_every_n_steps=1", "--trainer.deterministic=true", "--model.dropout=0.1")
    runs = [
        RunDirectory(fit(tmp_path / str(workers), *options, f"--data.num_workers={workers}", model="LoRA"))
        for workers in (0, 1, 2)
    ]
    assert numbers(runs[0]) == numbers(runs[1]) == numbers(runs[2])
    recorded = runs[0].read_environment()["determinism"]
    assert (recorded["requested"], recorded["achieved"]) == (True, "strict")
    assert (recorded["cublas_workspace"], recorded["cudnn_benchmark"]) == (":4096:8", False)
    assert recorded["threads"] == torch.get_num_threads()


def test_the_level_is_recorded_as_it_is(fit, tmp_path, any_algorithms):
    run = RunDirectory(fit(tmp_path / "run", "--trainer.deterministic=warn", epochs=1))
    recorded = run.read_environment()["determinism"]
    assert (recorded["requested"], recorded["achieved"]) == ("warn", "warn")
