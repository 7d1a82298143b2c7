"""Signals, really sent to a study: the run that is being trained saves, the study ends, the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from peft_lightning.runs import RunDirectory

SLOW = """
import os, time
from peft_lightning.methods import LinearProbe

class Slow(LinearProbe):
    def training_step(self, batch, batch_idx):
        time.sleep(float(os.environ["SECONDS_A_BATCH"]))
        return super().training_step(batch, batch_idx)
"""


@pytest.fixture
def study(tmp_path, tiny, reviews):
    """`study(seconds)` starts a study of two runs whose batches take so long."""
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    data = {"source": str(reviews), "max_length": 16, "batch_size": 8}
    content = {
        "runs": str(tmp_path / "runs"),
        "common": {
            "model": {"backbone": str(tiny())},
            "data": {"class_path": "TextClassification", "init_args": data},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
            "checkpoint_every_n_steps": 2,
        },
        "variants": {"Slow": {"model": {"class_path": "slow.Slow"}}},
        "seeds": [0, 1],
        "selection": [0, 1],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    def start(seconds):
        path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
        return subprocess.Popen(
            [sys.executable, "-m", "peft_lightning", "study", "study.yaml"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"SECONDS_A_BATCH": str(seconds), "PYTHONPATH": path},
        )

    return start


# Ctrl-C in a terminal is SIGINT to the group of the study.
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_the_run_with_its_checkpoint_and_the_study(study, tmp_path, number, status):
    run = RunDirectory(tmp_path / "runs" / "Slow" / "only" / "seed0")
    stopped = study(0.5)
    while not run.last_checkpoint.exists():
        assert stopped.poll() is None
        time.sleep(0.1)
    sent = time.time()
    stopped.send_signal(number)
    _, errors = stopped.communicate(timeout=120)
    saved, ended = run.last_checkpoint.with_name("last.ckpt.json").stat().st_mtime - sent, time.time() - sent
    print(f"{number.name}: saved after {saved:.1f} s, the study ended after {ended:.1f} s")
    assert stopped.returncode == status
    assert 0 < saved < 10
    at = torch.load(run.last_checkpoint, weights_only=True)["global_step"]
    assert run.read_result()["status"] == "interrupted"
    assert f"Stopped by {number.name} at step {at}" in errors
    assert f"Study stopped by {number.name} in Slow seed 0; the same command goes on from there." in errors
    assert [path.name for path in run.path.parent.iterdir()] == ["seed0"]
    again = study(0)
    printed, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert f"Going on from {run.last_checkpoint}, step {at}" in printed
    assert [path.read_text().count('"done"') for path in run.path.parent.glob("*/result.json")] == [1, 1]
